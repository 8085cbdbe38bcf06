"""``autoquant run``: draw one image with a plan."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Annotated

import typer


def run(
    plan: Annotated[Path, typer.Argument(help="A plan.json.", show_default=False)],
    prompt: Annotated[str, typer.Option(help="What to draw.", show_default=False)],
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the PNG.")] = Path(
        "image.png"
    ),
    source: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Where the pipeline is now, if it moved.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where to run (default: the accelerator, else cpu).")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let a pipeline bring code of its own.")
    ] = False,
) -> None:
    """Load the pipeline of a plan and draw one image with the plan's size and steps."""
    from autoquant.planner.plan import Plan

    loaded = Plan.load_json(plan)

    from autoquant.console.quiet import quiet_libraries

    quiet_libraries()
    from PIL import Image

    from autoquant.files import write_bytes
    from autoquant.metrics.images import check_images, to_bytes
    from autoquant.planner.drawing import draw
    from autoquant.planner.workload import Sample

    pipeline = loaded.load(source, device, trust_remote_code=trust_remote_code)
    images = draw(pipeline, loaded.workload, [Sample(prompt, seed)])
    check_images(images, [prompt])
    png = BytesIO()
    Image.fromarray(to_bytes(images)[0]).save(png, format="PNG")
    typer.echo(f"Written to {write_bytes(out, png.getvalue())}")
