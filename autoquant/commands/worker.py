"""``autoquant worker``: measure for a study that is shared."""

from __future__ import annotations

from typing import Annotated

import typer

from autoquant.commands.exit_status import ExitStatus


def worker(
    storage: Annotated[
        str, typer.Option("--storage", metavar="URL", help="The Optuna storage of the study.")
    ],
    study: Annotated[str, typer.Option("--study", metavar="NAME", help="The study's name.")],
    device: Annotated[
        str | None, typer.Option(help="Where to measure (default: the accelerator, else cpu).")
    ] = None,
    cache: Annotated[
        bool, typer.Option(help="Use and keep measurements in the cache ($AUTOQUANT_CACHE).")
    ] = True,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let a pipeline bring code of its own.")
    ] = False,
) -> None:
    """Measure candidates of a shared study, beside those who do it already, until it is done."""
    from rich.console import Console

    from autoquant.console.progress import ProgressDisplay
    from autoquant.console.quiet import quiet_libraries

    quiet_libraries()
    from autoquant.planner.joining import Sharing, join

    with ProgressDisplay(Console(stderr=True)) as display:
        result = join(
            Sharing(storage, study),
            device=device,
            cache=cache,
            trust_remote_code=trust_remote_code,
            on_progress=display,
        )
    typer.echo(f"The study {study} has {len(result.trials)} trials.")
    if result.interrupted:
        raise typer.Exit(ExitStatus.INTERRUPTED)
