from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autoquant.planner.plan import Plan
from autoquant.planner.report import write_report
from tests.planner.report.recorded_run import write_run


class Visit:
    """A page, and everything it said or asked for that it should not have."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", lambda message: self.complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("dialog", self._dismiss)
        page.on("request", self._note_request)

    def _dismiss(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _note_request(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            self.complaints.append(f"request: {request.url}")


Open = Callable[..., Any]


@pytest.fixture(scope="session")
def plain_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the recorded run."""
    return write_report(write_run(tmp_path_factory.mktemp("run")))


@pytest.fixture
def visit(chromium: Any, plain_report: Path, tmp_path: Path) -> Iterator[Open]:
    """Open the report of a plan; whatever a page complains of fails the test."""
    visits: list[Visit] = []
    contexts: list[Any] = []

    def open_report(plan: Plan | None = None, *, images: bool = True, **options: Any) -> Any:
        report = plain_report
        if plan is not None or not images:
            report = write_report(write_run(tmp_path / f"run-{len(visits)}", plan, images=images))
        contexts.append(chromium.new_context(**options))
        visits.append(Visit(contexts[-1].new_page()))
        visits[-1].page.goto(report.as_uri())
        return visits[-1].page

    yield open_report
    for context in contexts:
        context.close()
    assert [complaint for one in visits for complaint in one.complaints] == []
