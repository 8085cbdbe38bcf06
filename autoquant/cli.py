"""The command line: parse, call, print. It decides nothing."""

from __future__ import annotations

import os
import sys
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.exceptions import TyperException

from autoquant import __version__
from autoquant.errors import InfeasibleBudget, InputError, SearchInterrupted

if TYPE_CHECKING:
    from autoquant.planner.plan import Plan

app = typer.Typer(
    name="autoquant",
    help="What settings for my card? Measures quantization choices and proves a plan.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


# What typer returns for Ctrl-C outside the search.
_SIGINT_STATUS = 130


class ExitStatus(IntEnum):
    """What the command's exit status says."""

    DONE = 0
    FAULT = 1
    WRONG_INPUT = 2
    INFEASIBLE = 3
    INTERRUPTED = 4


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"autoquant {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


@app.command()
def suggest(
    model: Annotated[
        str, typer.Argument(help="A diffusers directory, a hub id, or 'demo'.", show_default=False)
    ],
    vram: Annotated[
        float, typer.Option("--vram", metavar="GB", help="Peak memory of a call, weights included.")
    ],
    latency: Annotated[
        float | None, typer.Option("--latency", metavar="S", help="Median seconds of a call.")
    ] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale.")] = None,
    prompts: Annotated[Path | None, typer.Option(metavar="FILE", help="One prompt a line.")] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Seeds for each prompt.")] = 1,
    trials: Annotated[int, typer.Option(metavar="N", help="Most candidates to measure.")] = 40,
    time_limit: Annotated[
        float | None,
        typer.Option(metavar="T", help="Seconds after which no new candidate is started."),
    ] = None,
    metric: Annotated[
        str, typer.Option(help="Deciding metric: auto (lpips, else flip), flip, ssim, psnr, lpips.")
    ] = "auto",
    backend: Annotated[
        list[str] | None, typer.Option(help="Search this backend only; may be repeated.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where to measure (default: the accelerator, else cpu).")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Compute dtype: bfloat16, float16 or float32.")
    ] = None,
    load_peak: Annotated[
        float | None, typer.Option(metavar="GB", help="Peak memory while loading.")
    ] = None,
    max_loss: Annotated[
        float | None, typer.Option(help="Largest loss, in units of the deciding metric.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    revision: Annotated[str | None, typer.Option(help="Hub revision.")] = None,
    variant: Annotated[str | None, typer.Option(help="Weight variant, like fp16.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to write (default: a new one in autoquant-out)."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what DIR holds.")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let a pipeline bring code of its own.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Search for the best plan within a budget, measure it, and write it out."""
    from autoquant.planner.budget import Budget
    from autoquant.planner.output import OutputDirectory, default_directory
    from autoquant.planner.search import SearchSettings
    from autoquant.planner.source import find_source
    from autoquant.planner.workload import WorkloadRequest, read_prompts

    # What can be checked without torch is checked before it is loaded.
    Budget.of(vram, latency, load_peak, max_loss)
    SearchSettings(trials, time_limit, seed)
    find_source(model)
    workload = WorkloadRequest(
        prompts=None if prompts is None else read_prompts(prompts),
        seeds=seeds,
        height=height,
        width=width,
        steps=steps,
        guidance_scale=guidance,
    )
    directory = out or default_directory(model, vram)
    with OutputDirectory(directory, overwrite=overwrite):
        pass
    plan = _plan(
        model,
        vram_gb=vram,
        latency_s=latency,
        workload=workload,
        trials=trials,
        time_limit_s=time_limit,
        seed=seed,
        metric=metric,
        backends=backend,
        device=device,
        compute_dtype=dtype,
        load_peak_gb=load_peak,
        max_loss=max_loss,
        out=directory,
        overwrite=overwrite,
        revision=revision,
        variant=variant,
        trust_remote_code=trust_remote_code,
    )
    _show(plan, directory, as_json=as_json)
    if plan.search.interrupted:
        raise typer.Exit(ExitStatus.INTERRUPTED)


def _plan(model: str, **options: Any) -> Plan:
    from rich.console import Console

    from autoquant.console.progress import ProgressDisplay
    from autoquant.console.quiet import quiet_libraries

    quiet_libraries()
    from autoquant.planner.api import autoquant

    with ProgressDisplay(Console(stderr=True)) as display:
        return autoquant(model, on_progress=display, **options)


def _show(plan: Plan, directory: Path, *, as_json: bool) -> None:
    if as_json:
        typer.echo(plan.to_json())
        return
    from rich.console import Console

    from autoquant.console.tables import plan_tables
    from autoquant.planner.emit.loader_script import SCRIPT_NAME

    console = Console(highlight=False)
    console.print(plan_tables(plan))
    console.print(f"\nWritten to {directory}: plan.json, {SCRIPT_NAME}, images/", soft_wrap=True)
    console.print(f"Next: python {directory / SCRIPT_NAME}", soft_wrap=True)


def main() -> NoReturn:
    """Run the command line and exit with its status."""
    sys.exit(_status(sys.argv[1:]))


def _status(arguments: list[str]) -> int:
    """Run one command; every error that is not a fault of ours is one line."""
    try:
        status = app(arguments, standalone_mode=False)
    except TyperException as error:
        return _fail(error.format_message(), ExitStatus.WRONG_INPUT)
    except InputError as error:
        return _fail(str(error), ExitStatus.WRONG_INPUT)
    except InfeasibleBudget as error:
        return _fail(str(error), ExitStatus.INFEASIBLE)
    except SearchInterrupted as error:
        return _fail(f"{error} Nothing was written.", ExitStatus.INTERRUPTED)
    except BrokenPipeError:
        # The reader has gone, as in `autoquant … | head`; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.DONE
    if status == _SIGINT_STATUS:
        return _fail("Interrupted. Nothing was written.", ExitStatus.INTERRUPTED)
    return status if isinstance(status, int) else ExitStatus.DONE


def _fail(message: str, status: ExitStatus) -> ExitStatus:
    typer.echo(f"autoquant: {' '.join(message.split())}", err=True)
    return status
