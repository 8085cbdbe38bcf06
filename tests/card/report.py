"""What the tests on a card saw, as a Markdown table to paste into docs/backends.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

MARK = "gpu"
COLUMNS = ("test", "result", "figures")


def card_table(stats: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """Yield the lines of the table; none if no test on a card has run.

    Args:
        stats: pytest's reports by outcome.
    """
    ran = [report for outcome in ("passed", "failed") for report in _on_a_card(stats, outcome)]
    if not ran:
        return
    skipped = _on_a_card(stats, "skipped")
    yield f"| {' | '.join(COLUMNS)} |"
    yield f"|{'---|' * len(COLUMNS)}"
    for report in sorted((*ran, *skipped), key=lambda report: report.nodeid):
        yield f"| `{_name(report)}` | {_result(report)} | {_figures(report)} |"


def _on_a_card(stats: Mapping[str, Sequence[Any]], outcome: str) -> list[Any]:
    return [
        report
        for report in stats.get(outcome, ())
        if MARK in report.keywords and (outcome != "passed" or report.when == "call")
    ]


def _name(report: Any) -> str:
    return str(report.nodeid.rpartition("::")[2])


def _result(report: Any) -> str:
    if report.outcome == "skipped":
        return _cell(f"not run: {report.longrepr[2].removeprefix('Skipped: ')}")
    if report.outcome == "failed":
        crash = getattr(report.longrepr, "reprcrash", None)
        said = str(getattr(crash, "message", report.longrepr)).strip().splitlines()
        return _cell(f"**fails**: {said[0] if said else 'without a word'}")
    return "works"


def _figures(report: Any) -> str:
    return _cell(", ".join(f"{name} {value}" for name, value in _pairs(report.user_properties)))


def _pairs(properties: Iterable[tuple[str, object]]) -> Iterator[tuple[str, str]]:
    for name, value in properties:
        yield name, f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
