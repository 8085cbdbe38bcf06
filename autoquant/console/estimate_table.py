"""Estimates as tables for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autoquant.planner.footprint.bands import PEAK_BAND
from autoquant.planner.footprint.estimate import Estimate, Row
from autoquant.planner.footprint.prediction import DECODING, DENOISING, ENCODING
from autoquant.planner.footprint.report import CAVEAT
from autoquant.planner.footprint.request import Request
from autoquant.planner.footprint.storage_formats import storage_format
from autoquant.planner.measurement import GIB
from autoquant.planner.quantities import gigabytes

_NARROWEST_NAME = 34
_MOST_ROWS = 24
_MARKS = {"fits": "✓", "fits with offload": "◐", "does not fit": "×"}


def estimate_tables(estimate: Estimate, command: str) -> RenderableType:
    """The verdict, every option, and what to do next."""
    return Group(_headline(estimate), Text(), _table(estimate), Text(), *_notes(estimate, command))


def _headline(estimate: Estimate) -> Text:
    request, budget = estimate.request, estimate.budget
    text = Text()
    text.append(
        f"{estimate.model.class_name or 'This model'} at {request.width}x{request.height}, batch "
        f"{request.batch}, {request.compute_dtype}, within {gigabytes(budget.vram_gb or 0)}",
        style="bold",
    )
    if budget.ram_gb is not None:
        text.append(f" and {gigabytes(budget.ram_gb)} of RAM", style="bold")
    best = estimate.rows[0]
    if estimate.fits:
        text.append(
            f": {_name(best, request)} {best.verdict}, "
            f"{gigabytes(best.prediction.peak.reserved / GIB)}."
        )
    else:
        text.append(
            f": nothing fits; the smallest, {_name(best, request)}, needs "
            f"{gigabytes(best.prediction.peak.reserved / GIB)}."
        )
    return text


def _table(estimate: Estimate) -> Table:
    table = Table(
        title="Predicted, closest to the original first",
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=None,
        pad_edge=False,
    )
    table.add_column("")
    table.add_column("option", overflow="fold", min_width=_NARROWEST_NAME)
    for heading in ("bits", "weights", "load", "encode", "denoise", "decode", "peak", "RAM"):
        table.add_column(heading, justify="right", no_wrap=True)
    groups = list(_groups(estimate))
    shown = groups[:_MOST_ROWS]
    for alike in shown:
        style = "dim" if alike[0].verdict == "does not fit" else ""
        table.add_row(*_cells(alike, estimate.request), style=style)
    if len(groups) > len(shown):
        table.add_row("", f"… and {len(groups) - len(shown)} more: --json lists all")
    return table


def _groups(estimate: Estimate) -> Iterator[list[Row]]:
    """Rows that differ in the scheme alone, not in bits, place or verdict, shown as one."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in estimate.rows:
        nominal = {storage_format(choice.scheme).bits for choice in row.option.choices.values()}
        key = (
            tuple(row.option.choices),
            tuple(round(bits) for bits in nominal),
            row.option.arrangement,
            row.verdict,
        )
        groups.setdefault(key, []).append(row)
    yield from groups.values()


def _cells(alike: list[Row], request: Request) -> Iterator[str]:
    """One line: the first of the group by name, the largest by each number."""
    predictions = [row.prediction for row in alike]
    yield _MARKS[alike[0].verdict] + ("" if all(row.certain for row in alike) else "?")
    others = [_schemes(row) for row in alike[1:]]
    yield _name(alike[0], request) + (f" (or {', '.join(others)})" if others else "")
    yield f"{alike[0].bits:.1f}"
    yield _gb(max(prediction.weights.allocated for prediction in predictions))
    yield _gb(max(prediction.load.reserved for prediction in predictions))
    for stage in (ENCODING, DENOISING, DECODING):
        yield _gb(max(prediction.stages[stage].reserved for prediction in predictions))
    peak = max(prediction.peak.reserved for prediction in predictions)
    yield f"{_gb(PEAK_BAND.at('low', peak))}-{_gb(PEAK_BAND.at('high', peak))}"
    yield _gb(max(prediction.peak_ram_bytes for prediction in predictions))


def _schemes(row: Row) -> str:
    return ", ".join(dict.fromkeys(choice.scheme for choice in row.option.choices.values()))


def _name(row: Row, request: Request) -> str:
    return " + ".join(filter(None, [row.option.label(request), row.option.arrangement.label]))


def _gb(n_bytes: float) -> str:
    return f"{n_bytes / GIB:.1f}" if n_bytes >= GIB else f"{n_bytes / GIB:.2f}"


def _notes(estimate: Estimate, command: str) -> Iterator[Text]:
    yield Text("✓ fits   ◐ fits with offload   × does not fit   ? the error band says either")
    yield Text(
        "GB of 2^30 bytes. Weights are allocated bytes, load and stages reserved bytes (what must "
        "fit the card), peak with its error band."
    )
    for note in estimate.notes:
        yield Text(note)
    yield Text(CAVEAT)
    yield Text(f"Measure it: {command}", style="bold")
