"""``autoquant estimate``: what fits, from headers and configs alone."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoquant.commands.exit_status import ExitStatus
from autoquant.errors import InputError

if TYPE_CHECKING:
    from autoquant.demo import DemoWorkload

# A pipe or file has no width of its own; this holds every column.
_PIPED_WIDTH = 120


def estimate(
    model: Annotated[
        str,
        typer.Argument(
            help="A diffusers directory, a hub id, a .safetensors or .gguf file, or 'demo'.",
            show_default=False,
        ),
    ],
    vram: Annotated[float, typer.Option("--vram", metavar="GB", help="Memory of the card (GiB).")],
    ram: Annotated[
        float | None, typer.Option("--ram", metavar="GB", help="Memory of the machine (GiB).")
    ] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    batch: Annotated[int, typer.Option(metavar="N", help="Images of one call.")] = 1,
    scheme: Annotated[
        list[str] | None,
        typer.Option(help="Compare this scheme only, like torchao:int8wo; may be repeated."),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Compute dtype: bfloat16, float16 or float32.")
    ] = "bfloat16",
    base: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="For one file: the pipeline that brings the other components."
        ),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE[=SCALE]", help="Count this LoRA; may be repeated."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Hub revision.")] = None,
    variant: Annotated[str | None, typer.Option(help="Weight variant, like fp16.")] = None,
    trace: Annotated[
        bool,
        typer.Option(
            "--trace", help="Run each component without weights and count every allocation."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the estimate as JSON.")] = False,
) -> None:
    """Predict what fits, before anything is loaded: weights and peaks by stage, no latency."""
    from autoquant.planner.budget import Budget
    from autoquant.planner.footprint.adapter_shapes import with_adapter_files
    from autoquant.planner.footprint.estimate import estimate as estimate_options
    from autoquant.planner.footprint.model_shapes import read_model
    from autoquant.planner.footprint.report import as_data
    from autoquant.planner.footprint.request import request_for
    from autoquant.planner.loras import NamedLora

    if ram is not None and not 0 < ram < inf:
        raise InputError(f"ram_gb must be a finite number above 0, got {ram!r}.")
    budget = Budget.of(vram_gb=vram).model_copy(update={"ram_gb": ram})
    files = [NamedLora.parse(text).file for text in lora or ()]
    shapes = with_adapter_files(read_model(model, revision, variant, base), files)
    own = _demo_workload(model)
    if own is not None:
        height = own["height"] if height is None else height
        width = own["width"] if width is None else width
    request = request_for(shapes, height, width, batch, dtype)
    if own is not None:
        request = request.with_call(own["max_sequence_length"], unguided=False)
    traced = None
    if trace:
        from autoquant.planner.footprint.trace_calls import traced_tapes

        traced = traced_tapes(shapes, request)
    result = estimate_options(shapes, request, budget, scheme, traced)
    command = _measuring_command(model, vram, height, width, lora or ())
    if as_json:
        typer.echo(json.dumps(as_data(result, command), indent=1))
    else:
        from rich.console import Console

        from autoquant.console.estimate_table import estimate_tables

        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = _PIPED_WIDTH
        console.print(estimate_tables(result, command))
    if not result.fits:
        raise typer.Exit(ExitStatus.INFEASIBLE)


def _demo_workload(model: str) -> DemoWorkload | None:
    """What the embedded pipeline was trained to draw, if ``model`` is that one."""
    from autoquant import demo
    from autoquant.planner.source import DEMO

    return demo.WORKLOAD if model == DEMO and not Path(model).exists() else None


def _measuring_command(
    model: str, vram: float, height: int | None, width: int | None, loras: Iterable[str]
) -> str:
    """What measures the prediction; a lone file is no pipeline that can be run."""
    name = "PIPELINE" if Path(model).expanduser().is_file() else shlex.quote(model)
    sizes = {"--height": height, "--width": width}
    asked = [f"{option} {size}" for option, size in sizes.items() if size is not None]
    asked += [f"--lora {shlex.quote(lora)}" for lora in loras]
    return " ".join(["autoquant suggest", name, f"--vram {vram:g}", *asked])
