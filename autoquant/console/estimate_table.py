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
from autoquant.planner.measurement import GIB
from autoquant.planner.quantities import gigabytes

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
    for heading in ("weights", "load", "encode", "denoise", "decode", "peak", "RAM", "bits"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("option", overflow="fold")
    for row in estimate.rows:
        style = "dim" if row.verdict == "does not fit" else ""
        table.add_row(*_cells(row, estimate.request), style=style)
    return table


def _cells(row: Row, request: Request) -> Iterator[str]:
    prediction = row.prediction
    yield _MARKS[row.verdict] + ("" if row.certain else "?")
    yield _gb(prediction.weights.allocated)
    yield _gb(prediction.load.reserved)
    for stage in (ENCODING, DENOISING, DECODING):
        yield _gb(prediction.stages[stage].reserved)
    peak = prediction.peak.reserved
    yield f"{_gb(PEAK_BAND.at('low', peak))}-{_gb(PEAK_BAND.at('high', peak))}"
    yield _gb(prediction.peak_ram_bytes)
    yield f"{row.bits:.1f}"
    yield _name(row, request)


def _name(row: Row, request: Request) -> str:
    return " + ".join(filter(None, [row.option.label(request), row.option.arrangement.label]))


def _gb(n_bytes: float) -> str:
    return f"{n_bytes / GIB:.2f}"


def _notes(estimate: Estimate, command: str) -> Iterator[Text]:
    yield Text("✓ fits   ◐ fits with offload   × does not fit   ? the error band says either")
    yield Text(
        "GB of 2^30 bytes. Weights are allocated bytes, load and stages reserved bytes (what must "
        "fit the card), peak with its error band."
    )
    yield Text(CAVEAT)
    yield Text(f"Measure it: {command}", style="bold")
