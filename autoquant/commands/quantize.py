"""``autoquant quantize``: write the planned pipeline as a checkpoint."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoquant.errors import InputError

if TYPE_CHECKING:
    from autoquant.planner.checkpoint.write import Checkpoint
    from autoquant.planner.plan import Plan


def quantize(
    plan: Annotated[Path, typer.Argument(help="A plan.json.", metavar="PLAN", show_default=False)],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write the checkpoint.")],
    source: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The pipeline, if it has moved.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where to quantize (default: the accelerator, else cpu).")
    ] = None,
    max_shard_size: Annotated[
        str, typer.Option(metavar="SIZE", help="Largest file, like 5GB.")
    ] = "5GB",
    as_gguf: Annotated[
        bool, typer.Option("--gguf", help="Write the transformer as a GGUF file instead.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Go on although other versions are installed.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what DIR holds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write the planned pipeline as a checkpoint that plain diffusers loads, and prove it."""
    from autoquant.planner.output import OutputDirectory
    from autoquant.planner.plan import Plan

    # What can be checked without torch is checked before it is loaded.
    if out.resolve() == plan.parent.resolve():
        raise InputError(f"--out {out} is where the plan itself is: choose another directory.")
    read = Plan.load_json(plan)
    with OutputDirectory(out, overwrite=overwrite):
        pass

    from autoquant.console.quiet import quiet_libraries

    quiet_libraries()
    if as_gguf:
        _gguf(read, out, source, force, overwrite, as_json=as_json)
        return
    from autoquant.planner.checkpoint.write import write_checkpoint

    written = write_checkpoint(
        read,
        out,
        source=source,
        device=device,
        max_shard_size=max_shard_size,
        force=force,
        overwrite=overwrite,
    )
    if as_json:
        entries = asdict(written) | {"directory": str(written.directory)}
        typer.echo(json.dumps(entries, indent=2))
    else:
        _show(read, written)


def _gguf(
    plan: Plan, out: Path, source: str | None, force: bool, overwrite: bool, *, as_json: bool
) -> None:
    from autoquant.planner.checkpoint.gguf_file import write_gguf
    from autoquant.planner.quantities import gigabytes

    written = write_gguf(plan, out, source=source, force=force, overwrite=overwrite)
    if as_json:
        typer.echo(json.dumps(asdict(written) | {"path": str(written.path)}, indent=2))
        return
    counts = ", ".join(f"{count} {kind}" for kind, count in written.tensors.items())
    typer.echo(f"Written to {written.path}: {gigabytes(written.stored_gb)}, {counts} tensors.")


def _show(plan: Plan, written: Checkpoint) -> None:
    from autoquant.planner.quantities import gigabytes

    typer.echo(
        f"Written to {written.directory}: {gigabytes(written.stored_gb)} on disk, "
        f"{gigabytes(written.weights_gb)} once loaded (planned "
        f"{gigabytes(plan.measured.weights_gb)})."
    )
    typer.echo(
        "Loaded again in a fresh process: the same bytes, images within "
        f"{written.largest_pixel_difference * 255:.0f} of 255."
    )
    if written.licences:
        typer.echo(f"Licence files: {', '.join(written.licences)}")
    typer.echo(
        f'Next: DiffusionPipeline.from_pretrained("{written.directory}", '
        f"dtype=torch.{plan.runtime.compute_dtype})"
    )
