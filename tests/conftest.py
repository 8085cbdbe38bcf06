from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.card.report import card_table
from tests.in_process import autoquant_command, run_script

__all__ = ["autoquant_command", "run_script"]

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# Tiny models gain nothing from a second thread, and lose much to waiting for it where other
# processes run; torch reads this when it is imported, in the processes that tests start too.
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes, as measured; one where memory and seconds of a card are read."""
    return 0 if "gpu" in config.option.markexpr else min(2, os.cpu_count() or 1)


def pytest_collection_finish() -> None:
    """Keep the half a million objects of what was imported out of each collection of garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install -e '.[browser]'"
    )
    executable = next(filter(None, map(shutil.which, _NAMES)), None)
    if executable is None:
        pytest.skip(f"needs one of these browsers on the PATH: {', '.join(_NAMES)}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(_FLAGS))
        yield browser
        browser.close()


@pytest.fixture(autouse=True, scope="session")
def _cache_of_its_own() -> Iterator[None]:
    """No test reads or writes the measurements of whoever runs it."""
    with (
        tempfile.TemporaryDirectory(prefix="autoquant-cache-") as directory,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setitem(os.environ, "AUTOQUANT_CACHE", directory)
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--card",
        metavar="DEVICE",
        help="where tests marked gpu run, like cuda:1; cpu rehearses those that it can",
    )


def pytest_terminal_summary(terminalreporter: Any) -> None:
    lines = list(card_table(terminalreporter.stats))
    if lines:
        terminalreporter.section("on a card, for docs/backends.md")
        terminalreporter.write_line("\n".join(lines))
