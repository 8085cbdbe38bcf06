"""``autoquant suggest``: the main job."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoquant.commands.exit_status import ExitStatus
from autoquant.errors import StudyDiffers, StudyInUse

if TYPE_CHECKING:
    from autoquant.planner.joining import Sharing
    from autoquant.planner.plan import Plan


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
    clip: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="CLIP guard: open_clip's MODEL:TAG, or local-dir:PATH."),
    ] = None,
    download: Annotated[
        bool, typer.Option(help="Fetch metric weights that are not on this machine.")
    ] = True,
    backend: Annotated[
        list[str] | None, typer.Option(help="Search this backend only; may be repeated.")
    ] = None,
    space: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Try what this YAML file says.")
    ] = None,
    gguf: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Try this GGUF file as weights; may be repeated."),
    ] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[COMPONENT=]FOLDER",
            help="Try this model folder, quantized before, as weights; may be repeated.",
        ),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE[=SCALE]", help="Plan with this LoRA loaded; may be repeated."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where to measure (default: the accelerator, else cpu).")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Compute dtype: bfloat16, float16 or float32.")
    ] = None,
    offload: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODE", help="Try this offload only (none, model, group_leaf …); repeatable."
        ),
    ] = None,
    compile_: Annotated[
        list[str] | None,
        typer.Option(
            "--compile", metavar="HOW", help="Try this only: none, regional, whole; repeatable."
        ),
    ] = None,
    attention: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Try this attention backend only; repeatable."),
    ] = None,
    vae_tiling: Annotated[
        bool | None, typer.Option(help="Decode in tiles, or never (default: try where it helps).")
    ] = None,
    batch: Annotated[int, typer.Option(metavar="N", help="Images per pipeline call.")] = 1,
    load_peak: Annotated[
        float | None, typer.Option(metavar="GB", help="Peak memory while loading.")
    ] = None,
    max_loss: Annotated[
        float | None, typer.Option(help="Largest loss, in units of the deciding metric.")
    ] = None,
    ram: Annotated[
        float | None,
        typer.Option("--ram", metavar="GB", help="Peak host memory of the measuring process."),
    ] = None,
    objective: Annotated[
        str, typer.Option(help="Made least within the limits: loss, latency or vram.")
    ] = "loss",
    images_per_session: Annotated[
        int | None,
        typer.Option(metavar="N", help="Spread the time for compiling over so many images."),
    ] = None,
    confirm: Annotated[
        bool, typer.Option(help="Draw the winner on prompts that the search never saw.")
    ] = True,
    stop_early: Annotated[
        bool, typer.Option(help="Leave out the last images of what cannot become the plan.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    revision: Annotated[str | None, typer.Option(help="Hub revision.")] = None,
    variant: Annotated[str | None, typer.Option(help="Weight variant, like fp16.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to write (default: a new one in autoquant-out)."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what DIR holds.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget what an interrupted search in DIR measured.")
    ] = False,
    cache: Annotated[
        bool, typer.Option(help="Use and keep measurements in the cache ($AUTOQUANT_CACHE).")
    ] = True,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Optuna storage in which `autoquant worker` can join."),
    ] = None,
    study: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its name there (default: that of DIR).")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let a pipeline bring code of its own.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Search for the best plan within a budget, measure it, and write it out."""
    from autoquant.planner.budget import Budget
    from autoquant.planner.checkpoints import NamedCheckpoint, require_stored_weights
    from autoquant.planner.gguf_files import gguf_scheme
    from autoquant.planner.loras import require_loras
    from autoquant.planner.output import ResumableOutput, default_directories
    from autoquant.planner.search_settings import SearchSettings
    from autoquant.planner.source import find_source
    from autoquant.planner.study_directory import STUDY
    from autoquant.planner.workload import WorkloadRequest, read_prompts
    from autoquant.search_spaces.levers import asked_levers
    from autoquant.search_spaces.space_file import read_space_file

    # What can be checked without torch is checked before it is loaded.
    asked = {"offload": offload, "compile": compile_, "attention": attention}
    levers: dict[str, list[Any]] = {name: values for name, values in asked.items() if values}
    if vae_tiling is not None:
        levers["vae_tiling"] = [vae_tiling]
    asked_levers(levers)
    Budget.of(vram, latency, load_peak, max_loss, ram, objective, images_per_session)
    SearchSettings(trials, time_limit, seed)
    find_source(model)
    if space is not None:
        read_space_file(space)
    require_stored_weights(map(gguf_scheme, gguf or ()))
    require_stored_weights(NamedCheckpoint.parse(it).scheme for it in checkpoint or ())
    require_loras(lora or ())
    workload = WorkloadRequest(
        prompts=None if prompts is None else read_prompts(prompts),
        seeds=seeds,
        height=height,
        width=width,
        steps=steps,
        guidance_scale=guidance,
        batch_size=batch,
    )
    if out is not None:
        ResumableOutput(out, STUDY, overwrite=overwrite)
    plan, directory = _plan(
        model,
        [out] if out is not None else default_directories(model, vram),
        vram_gb=vram,
        latency_s=latency,
        workload=workload,
        trials=trials,
        time_limit_s=time_limit,
        seed=seed,
        confirm=confirm,
        stop_early=stop_early,
        metric=metric,
        **({} if clip is None else {"clip_model": clip}),
        download=download,
        backends=backend,
        device=device,
        compute_dtype=dtype,
        load_peak_gb=load_peak,
        max_loss=max_loss,
        ram_gb=ram,
        objective=objective,
        images_per_session=images_per_session,
        overwrite=overwrite,
        fresh=fresh,
        cache=cache,
        storage=storage,
        study=study,
        revision=revision,
        variant=variant,
        trust_remote_code=trust_remote_code,
        space_file=space,
        gguf_files=gguf or (),
        checkpoints=checkpoint or (),
        loras=lora or (),
        levers=levers,
    )
    _show(plan, directory, as_json=as_json)
    if plan.search.interrupted:
        raise typer.Exit(ExitStatus.INTERRUPTED)


def _plan(
    model: str,
    directories: Iterable[Path],
    storage: str | None,
    study: str | None,
    **options: Any,
) -> tuple[Plan, Path]:
    """Plan into the first of ``directories`` that is free, or holds this search unfinished."""
    from rich.console import Console

    from autoquant.console.progress import ProgressDisplay
    from autoquant.console.quiet import quiet_libraries

    quiet_libraries()
    from autoquant.planner.api import autoquant

    refused: StudyDiffers | StudyInUse | None = None
    for directory in directories:
        try:
            with ProgressDisplay(Console(stderr=True)) as display:
                plan: Plan = autoquant(
                    model,
                    out=directory,
                    sharing=_sharing(storage, study or directory.name),
                    on_progress=display,
                    **options,
                )
            return plan, directory
        except (StudyDiffers, StudyInUse) as error:
            refused = error
    assert refused is not None
    raise refused


def _sharing(storage: str | None, study: str) -> Sharing | None:
    if storage is None:
        return None
    from autoquant.planner.joining import Sharing
    from autoquant.planner.optuna_storage import without_password

    joining = f"autoquant worker --storage {without_password(storage)} --study {study}"
    typer.echo(f"Others join with: {joining}", err=True)
    return Sharing(storage, study)


def _show(plan: Plan, directory: Path, *, as_json: bool) -> None:
    if as_json:
        typer.echo(plan.to_json())
        return
    from rich.console import Console

    from autoquant.console.tables import plan_tables
    from autoquant.planner.emit.loader_script import SCRIPT_NAME

    console = Console(highlight=False)
    console.print(plan_tables(plan, console.width))
    console.print(
        f"\nWritten to {directory}: plan.json, {SCRIPT_NAME}, report.html, images/", soft_wrap=True
    )
    console.print(f"Next: python {directory / SCRIPT_NAME}", soft_wrap=True)
