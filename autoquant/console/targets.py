"""The emit targets as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table

_STYLES = {"full": "green", "partial": "yellow", "impossible": "dim"}


def targets_table(entries: Sequence[Mapping[str, Any]]) -> RenderableType:
    """One row a target: what it carries in general, or of one plan where that was asked."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("target", no_wrap=True)
    of_a_plan = any("carries" in entry for entry in entries)
    if of_a_plan:
        table.add_column("carries", no_wrap=True)
    table.add_column("", overflow="fold")
    for entry in entries:
        if of_a_plan:
            level = entry["carries"]
            details = [entry["reason"]] if entry["reason"] else entry["lost"]
            text = "; ".join(details) if details else entry["summary"]
            table.add_row(entry["target"], f"[{_STYLES[level]}]{level}[/]", _plain(text))
        else:
            table.add_row(entry["target"], _plain(entry["summary"]))
    return table


def _plain(text: str) -> str:
    # Square brackets are markup to rich.
    return text.replace("[", r"\[")
