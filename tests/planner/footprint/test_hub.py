"""The hub client against a server of our own that speaks as much of its API as is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from autoquant.planner.footprint.shapes import ModelShapes
from tests.planner.footprint.pipelines import write_pipeline

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Handler(BaseHTTPRequestHandler):
    """Repositories ``me/public`` (open), ``me/gated`` (401 or 403) and nothing else."""

    root: ClassVar[Path]
    ranges: ClassVar[list[tuple[str, str | None]]] = []
    tokens: ClassVar[set[str | None]] = set()

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def answer(self, *, with_body: bool) -> None:
        self.tokens.add(self.headers.get("authorization"))
        path = self.path.partition("?")[0]
        if "me/gated" in path:
            self.send(403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
        elif path.startswith("/api/models/me/public"):
            files = [p for p in self.root.rglob("*") if p.is_file()]
            siblings = [
                {"rfilename": p.relative_to(self.root).as_posix(), "size": p.stat().st_size}
                for p in files
            ]
            content = {"id": "me/public", "sha": COMMIT, "siblings": siblings}
            self.send(200, json.dumps(content).encode(), {})
        elif path.startswith(f"/me/public/resolve/{COMMIT}/"):
            self.send_file(path.split(f"{COMMIT}/")[1], with_body=with_body)
        else:
            self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def send_file(self, name: str, *, with_body: bool) -> None:
        wanted = self.headers.get("range")
        file = self.root / name
        size = file.stat().st_size
        extra = {"ETag": '"0123456789"', "X-Repo-Commit": COMMIT}
        if not with_body:
            self.send(200, b"", {**extra, "Content-Length": str(size)})
            return
        self.ranges.append((name, wanted))
        if wanted is None:
            self.send(200, file.read_bytes(), extra)
            return
        first, last = map(int, wanted.removeprefix("bytes=").split("-"))
        with file.open("rb") as stream:
            stream.seek(first)
            body = stream.read(last - first + 1)
        where = f"bytes {first}-{first + len(body) - 1}/{size}"
        self.send(206, body, {**extra, "Content-Range": where})

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def endpoint(flux: ModelShapes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    Handler.root = write_pipeline(tmp_path_factory.mktemp("hub"), flux, shards=2)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def estimate(
    endpoint: str, cache: Path, model: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    known = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-m", "autoquant", "estimate", model, "--vram", "24", "--json",
         "--scheme", "torchao:int8wo"],
        env=known | {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache)} | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_headers_come_by_range_and_the_token_goes_along(endpoint: str, tmp_path: Path) -> None:
    Handler.ranges.clear()
    done = estimate(endpoint, tmp_path, "me/public", HF_TOKEN="hf_abc")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pipeline"] == "FluxPipeline"
    weights = [wanted for name, wanted in Handler.ranges if name.endswith(".safetensors")]
    assert weights
    assert all(wanted is not None for wanted in weights)
    assert "Bearer hf_abc" in Handler.tokens


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("me/gated", "me/gated is gated: accept its terms on the hub, then run `hf auth login`."),
        ("me/missing", "The hub has no me/missing, or it is private"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    endpoint: str, tmp_path: Path, model: str, message: str
) -> None:
    done = estimate(endpoint, tmp_path, model)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_no_network_is_one_line(tmp_path: Path) -> None:
    done = estimate("http://127.0.0.1:9", tmp_path, "me/public")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("autoquant: The hub cannot be reached for me/public")
    assert done.stderr.count("\n") == 1


def test_offline_mode_does_not_ask_the_hub(endpoint: str, tmp_path: Path) -> None:
    Handler.ranges.clear()
    done = estimate(endpoint, tmp_path, "me/public", HF_HUB_OFFLINE="1")
    assert done.returncode == 2, done.stderr
    assert "HF_HUB_OFFLINE forbids asking the hub" in done.stderr
    assert not Handler.ranges
