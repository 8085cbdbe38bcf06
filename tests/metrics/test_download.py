from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from autoquant.errors import MetricUnavailable
from autoquant.metrics import download
from autoquant.metrics.download import require_reachable


class Forbidding(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_error(403)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Forbidding) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}/weights"
        listening.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def test_a_server_that_refuses_is_there(server: str) -> None:
    require_reachable(server, "do this instead.")


def test_a_closed_port_is_said_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(MetricUnavailable, match=r"does not answer \(.*\); do this instead\."):
        require_reachable(f"http://127.0.0.1:{port}", "do this instead.")


def test_a_server_that_never_answers_is_left_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_TIMEOUT_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.perf_counter()
        with pytest.raises(MetricUnavailable, match="timed out"):
            require_reachable(f"http://127.0.0.1:{silent.getsockname()[1]}", "")
    assert time.perf_counter() - start < 2
