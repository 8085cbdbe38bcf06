"""``autoquant doctor``: what works on this machine."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    device: Annotated[
        str | None, typer.Option(help="Where to try (default: the accelerator, else cpu).")
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="Try this backend only; may be repeated.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="S", min=1, help="Seconds after which a trial is ended.")
    ] = 300,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Try every backend and precision on a small layer, each in a process of its own."""
    from rich.console import Console

    from autoquant.console.doctor_table import doctor_table
    from autoquant.planner.doctor import Finding, diagnose

    progress = Console(stderr=True, highlight=False)
    done = 0

    def show(finding: Finding, total: int) -> None:
        nonlocal done
        done += 1
        progress.print(f"[{done}/{total}] {finding.scheme} {finding.state}", markup=False)

    diagnosis = diagnose(device, backend, timeout, show)
    if as_json:
        typer.echo(diagnosis.model_dump_json(indent=2))
        return
    Console(highlight=False).print(doctor_table(diagnosis))
