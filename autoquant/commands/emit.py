"""``autoquant emit``: write a plan as the file that another tool reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoquant.errors import InputError

if TYPE_CHECKING:
    from autoquant.planner.emit.base import Verdict
    from autoquant.planner.plan import Plan


def emit(
    plan: Annotated[
        Path | None, typer.Argument(help="A plan.json.", metavar="PLAN", show_default=False)
    ] = None,
    target: Annotated[
        str | None, typer.Option("--to", metavar="TARGET", help="What to write; see --list.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to write (default: TARGET beside the plan)."),
    ] = None,
    list_targets: Annotated[
        bool, typer.Option("--list", help="List the targets; with PLAN, what each carries of it.")
    ] = False,
    source: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The pipeline, if it has moved.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Go on although other versions are installed.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what DIR holds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write a plan as the file that another tool reads."""
    from autoquant.planner.emit.registry import emitter
    from autoquant.planner.output import OutputDirectory
    from autoquant.planner.plan import Plan

    # What can be checked without torch is checked before it is loaded.
    read = None if plan is None else Plan.load_json(plan)
    if list_targets:
        _list(read, source, as_json=as_json)
        return
    if plan is None or read is None or target is None:
        raise InputError(
            "Name a plan and a target: autoquant emit plan.json --to TARGET. "
            "autoquant emit --list shows the targets."
        )
    emitter(target)
    if out is not None and out.resolve() == plan.parent.resolve():
        raise InputError(f"--out {out} is where the plan itself is: choose another directory.")
    directory = out or plan.parent / target
    with OutputDirectory(directory, overwrite=overwrite):
        pass
    _emit(read, target, directory, source, force, overwrite, as_json=as_json)


def _emit(
    plan: Plan,
    target: str,
    directory: Path,
    source: str | None,
    force: bool,
    overwrite: bool,
    *,
    as_json: bool,
) -> None:
    from autoquant.console.quiet import quiet_libraries

    quiet_libraries()
    emitted = plan.emit(target, directory, source=source, force=force, overwrite=overwrite)
    if as_json:
        entries = {
            "target": emitted.target,
            "directory": str(emitted.directory),
            "files": list(emitted.files),
            **_verdict_entries(emitted.verdict),
            "next": emitted.next_step,
        }
        typer.echo(json.dumps(entries, indent=2))
        return
    typer.echo(f"Written to {emitted.directory}: {', '.join(emitted.files)}")
    for loss in emitted.verdict.lost:
        typer.echo(f"Lost: {loss}")
    typer.echo(f"Next: {emitted.next_step}")


def _list(plan: Plan | None, source: str | None, *, as_json: bool) -> None:
    from autoquant.planner.emit.registry import emitters

    entries: list[dict[str, Any]] = [
        {"target": name, "summary": each.summary} for name, each in emitters().items()
    ]
    if plan is not None:
        from autoquant.console.quiet import quiet_libraries
        from autoquant.planner.emit.base import verdict_on
        from autoquant.planner.emit.layout import read_layout

        quiet_libraries()
        layout = read_layout(plan, source)
        for entry, each in zip(entries, emitters().values(), strict=True):
            entry.update(_verdict_entries(verdict_on(plan, layout, each)))
    if as_json:
        typer.echo(json.dumps(entries, indent=2))
        return
    from rich.console import Console

    from autoquant.console.targets import targets_table

    Console(highlight=False).print(targets_table(entries))


def _verdict_entries(verdict: Verdict) -> dict[str, Any]:
    return {
        "carries": verdict.level,
        "lost": list(verdict.lost),
        "reason": verdict.impossible,
    }
