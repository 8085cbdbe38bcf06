"""``autoquant()``: a pipeline and a budget in, a measured plan out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from autoquant import __version__, demo
from autoquant.errors import InfeasibleBudget, InputError, SearchInterrupted
from autoquant.metrics.device import fingerprint, package_versions, resolve_device
from autoquant.metrics.fidelity import (
    AUTO,
    DEFAULT_CLIP_MODEL,
    available_metrics,
    deciding_metric,
)
from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.delivery import Planned, deliver
from autoquant.planner.device_evaluator import DeviceEvaluator, build_pipeline
from autoquant.planner.drawing import require_call_takes
from autoquant.planner.loading import ComponentLoader, DirectoryLoader, ObjectLoader
from autoquant.planner.measurement import Trial
from autoquant.planner.output import OutputDirectory
from autoquant.planner.parameters import unquantized
from autoquant.planner.pipeline import workload_for
from autoquant.planner.plan import (
    FailedTrial,
    ParetoPoint,
    Plan,
    PlannedComponent,
    PlannedPipeline,
    ReferenceCost,
    SearchSummary,
)
from autoquant.planner.progress import OnProgress, Progress, silent
from autoquant.planner.reasons import reason
from autoquant.planner.search import SearchResult, SearchSettings, search
from autoquant.planner.selection import RULE, Selection, choose, is_feasible
from autoquant.planner.source import DEMO, IN_MEMORY, PipelineSource, find_source, local_directory
from autoquant.planner.workload import Workload, WorkloadRequest
from autoquant.search_spaces.space import SearchSpace, open_space


def autoquant(
    pipeline: Any,
    vram_gb: float | None = None,
    latency_s: float | None = None,
    *,
    workload: WorkloadRequest | None = None,
    trials: int = 40,
    time_limit_s: float | None = None,
    seed: int = 0,
    metric: str = AUTO,
    clip_model: str = DEFAULT_CLIP_MODEL,
    backends: Sequence[str] | None = None,
    device: str | None = None,
    compute_dtype: str | None = None,
    load_peak_gb: float | None = None,
    max_loss: float | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    revision: str | None = None,
    variant: str | None = None,
    trust_remote_code: bool = False,
    on_progress: OnProgress = silent,
) -> Plan:
    """Find the settings under which ``pipeline`` keeps a budget with the least loss of fidelity.

    Args:
        pipeline: A diffusers pipeline in memory, a local directory, a hub id, or ``"demo"``.
        vram_gb: Peak memory of a call, weights included, in GiB.
        latency_s: Median wall seconds of a call.
        workload: Prompts, sizes and steps; what is left out comes from the pipeline.
        trials: Most candidates to measure.
        time_limit_s: Wall seconds after which no further candidate is started.
        seed: Seed of the search.
        metric: Deciding metric; ``auto`` is LPIPS where its weights can be had, else FLIP.
        clip_model: Guard against lost prompts: open_clip's ``MODEL:TAG``, or ``local-dir:PATH``.
        backends: Backends to search; by default every one that is usable here.
        device: Where to measure; by default the accelerator if there is one.
        compute_dtype: ``bfloat16``, ``float16`` or ``float32``; by default that of a half-precision
            pipeline in memory, else bfloat16.
        load_peak_gb: Peak memory while loading, in GiB.
        max_loss: Largest loss, in units of the deciding metric.
        out: Directory for ``plan.json``, ``load_pipeline.py`` and the images, put in place whole.
        overwrite: Whether to replace what ``out`` holds.
        revision: Hub revision.
        variant: Weight variant, like ``fp16``.
        trust_remote_code: Whether a pipeline may bring code of its own.
        on_progress: Called after each step.

    Raises:
        InputError: An argument or the model is wrong.
        InfeasibleBudget: Nothing that was measured keeps the budget; the message names the nearest.
        SearchInterrupted: Ctrl-C came before anything fitted.
    """
    budget = Budget.of(vram_gb, latency_s, load_peak_gb, max_loss)
    settings = SearchSettings(trials=trials, time_limit_s=time_limit_s, seed=seed)
    with ExitStack() as stack:
        output = None
        if out is not None:
            output = stack.enter_context(OutputDirectory(Path(out), overwrite=overwrite))
        planned = plan_pipeline(
            pipeline,
            budget,
            workload=workload or WorkloadRequest(),
            settings=settings,
            metric=metric,
            clip_model=clip_model,
            backends=backends,
            device=device,
            compute_dtype=compute_dtype,
            revision=revision,
            variant=variant,
            trust_remote_code=trust_remote_code,
            on_progress=on_progress,
        )
        if output is not None:
            deliver(planned, output.partial)
            output.commit()
    return planned.plan


def plan_pipeline(
    pipeline: Any,
    budget: Budget,
    *,
    workload: WorkloadRequest,
    settings: SearchSettings,
    metric: str = AUTO,
    clip_model: str = DEFAULT_CLIP_MODEL,
    backends: Sequence[str] | None = None,
    device: str | None = None,
    compute_dtype: str | None = None,
    trust_remote_code: bool = False,
    on_progress: OnProgress = silent,
    revision: str | None = None,
    variant: str | None = None,
) -> Planned:
    """``autoquant()`` with what is needed to hand the plan over, and nothing written."""
    torch_device = resolve_device(device)
    source, loader = _open(pipeline, revision, variant, trust_remote_code)
    if source.location == DEMO:
        workload = _demo_workload(workload)
    runtime = Runtime(compute_dtype=_compute_dtype(pipeline, compute_dtype))
    on_progress(Progress("reference"))
    try:
        evaluator, space, full_workload, notes = _measure_reference(
            loader, runtime, workload, torch_device, metric, clip_model, backends
        )
    except KeyboardInterrupt:
        raise SearchInterrupted("Interrupted before the reference was measured.") from None
    result = search(evaluator, space, budget, settings, runtime, on_progress)
    try:
        selection = choose(result.trials, budget)
    except InfeasibleBudget as error:
        if result.interrupted:
            raise SearchInterrupted(
                f"Interrupted after {len(result.trials)} trials. {error}"
            ) from None
        raise
    plan = _write_plan(
        source,
        loader,
        budget,
        full_workload,
        evaluator,
        selection,
        result,
        settings,
        torch_device,
        notes,
    )
    on_progress(Progress("done", len(result.trials), len(result.trials), best=selection.chosen))
    key = selection.chosen.candidate.key
    return Planned(
        plan, evaluator.reference_images, evaluator.images[key], evaluator.components[key]
    )


def _open(
    pipeline: Any, revision: str | None, variant: str | None, trust_remote_code: bool
) -> tuple[PipelineSource, ComponentLoader]:
    if isinstance(pipeline, str | Path):
        source = find_source(str(pipeline), revision=revision, variant=variant)
        directory = local_directory(source)
        return source, DirectoryLoader(directory, trust_remote_code=trust_remote_code)
    if not hasattr(pipeline, "components"):
        raise InputError(
            f"Pass a diffusers pipeline, a directory or a hub id, got {type(pipeline).__name__}."
        )
    return _source_of_object(pipeline), ObjectLoader(pipeline)


def _source_of_object(pipeline: Any) -> PipelineSource:
    origin = getattr(pipeline, "name_or_path", None) or ""
    try:
        return find_source(str(origin))
    except InputError:
        return PipelineSource(location=IN_MEMORY)


def _demo_workload(request: WorkloadRequest) -> WorkloadRequest:
    known = demo.WORKLOAD
    return WorkloadRequest(
        prompts=request.prompts or tuple(known["prompts"]),
        seeds=request.seeds,
        height=request.height or known["height"],
        width=request.width or known["width"],
        steps=request.steps or known["steps"],
        guidance_scale=request.guidance_scale,
        batch_size=request.batch_size,
        call_arguments={
            "max_sequence_length": known["max_sequence_length"],
            **request.call_arguments,
        },
    )


def _compute_dtype(pipeline: Any, requested: str | None) -> Any:
    if requested is None:
        own = str(getattr(pipeline, "dtype", "")).removeprefix("torch.")
        return own if own in {"bfloat16", "float16"} else "bfloat16"
    if requested not in {"bfloat16", "float16", "float32"}:
        raise InputError(
            f"compute_dtype must be 'bfloat16', 'float16' or 'float32', got {requested!r}."
        )
    return requested


def _measure_reference(
    loader: ComponentLoader,
    runtime: Runtime,
    request: WorkloadRequest,
    device: torch.device,
    metric: str,
    clip_model: str,
    backends: Sequence[str] | None,
) -> tuple[DeviceEvaluator, SearchSpace, Workload, tuple[str, ...]]:
    built = build_pipeline(loader, Candidate(components={}, runtime=runtime), device)
    workload = workload_for(built.pipeline, request)
    require_call_takes(loader.pipeline_class, workload)
    # Weights of hundreds of MB are fetched only where the user leaves the metric to us or asks for it.
    metrics, missing = available_metrics(
        None,
        image_size=(workload.height, workload.width),
        allow_download=metric in {AUTO, "lpips"},
        clip_model=clip_model,
    )
    decides = deciding_metric(metric, metrics, missing)
    space = open_space(loader.pipeline_class.__name__, built.modules, device.type, backends)
    evaluator = DeviceEvaluator(
        loader, built, unquantized(space, runtime), workload, device, metrics, decides
    )
    notes = [f"{name} was not measured: {why}" for name, why in missing.items()]
    return evaluator, space, workload, (*notes, *_device_notes(device))


def _device_notes(device: torch.device) -> tuple[str, ...]:
    if device.type != "cpu":
        return ()
    return (
        "Measured on a CPU: latencies here say nothing about a GPU, and peaks are tensor bytes "
        "without an allocator's reserve.",
    )


def _write_plan(
    source: PipelineSource,
    loader: ComponentLoader,
    budget: Budget,
    workload: Workload,
    evaluator: DeviceEvaluator,
    selection: Selection,
    result: SearchResult,
    settings: SearchSettings,
    device: torch.device,
    notes: tuple[str, ...],
) -> Plan:
    chosen, reference = selection.chosen, evaluator.reference
    assert chosen.measured is not None
    failed = [trial for trial in result.trials if trial.failure is not None]
    return Plan(
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        autoquant=__version__,
        pipeline=PlannedPipeline(
            class_name=loader.pipeline_class.__name__,
            source=source.location,
            revision=source.revision,
            variant=source.variant,
        ),
        budget=budget,
        workload=workload,
        components={
            name: PlannedComponent(
                **choice.model_dump(), why=reason(name, chosen, reference, result.trials, budget)
            )
            for name, choice in chosen.candidate.components.items()
        },
        runtime=chosen.candidate.runtime,
        measured=chosen.measured,
        reference=ReferenceCost(
            weights_gb=reference.weights_gb,
            peak_gb=reference.peak_gb,
            latency_s=reference.latency_s.median,
            fits=is_feasible(reference, budget),
        ),
        pareto=tuple(_pareto_point(trial, chosen, budget) for trial in selection.pareto),
        search=SearchSummary(
            trials=len(result.trials),
            pruned=0,
            failed=len(failed),
            seconds=result.seconds,
            seed=settings.seed,
            interrupted=result.interrupted,
            rule=RULE,
            ties=tuple(trial.candidate.label for trial in selection.tied),
            notes=notes,
            failures=tuple(
                FailedTrial(components=trial.candidate.components, reason=trial.failure or "")
                for trial in failed
            ),
        ),
        device=fingerprint(device),
        versions=package_versions(),
    )


def _pareto_point(trial: Trial, chosen: Trial, budget: Budget) -> ParetoPoint:
    assert trial.measured is not None
    return ParetoPoint(
        components=trial.candidate.components,
        runtime=trial.candidate.runtime,
        measured=trial.measured,
        chosen=trial is chosen,
        feasible=is_feasible(trial.measured, budget),
    )
