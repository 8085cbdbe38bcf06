"""``autoquant report``: look at a plan with your own eyes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="What 'autoquant suggest' wrote.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write (default: DIR/report.html)."),
    ] = None,
) -> None:
    """Write one HTML file that shows a plan: figures, plots, images, and a blind test."""
    from autoquant.planner.report import write_report

    typer.echo(f"Written to {write_report(directory, out)}; open it in a browser.")
