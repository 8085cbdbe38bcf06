"""``autoquant()``: a pipeline and a budget in, a measured plan out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from autoquant.errors import InfeasibleBudget, SearchInterrupted
from autoquant.metrics.fidelity import AUTO
from autoquant.metrics.metric import DEFAULT_CLIP_MODEL
from autoquant.planner.budget import Budget
from autoquant.planner.delivery import Planned, deliver
from autoquant.planner.evaluator import AnsweringEvaluator, Recorder
from autoquant.planner.footprint.searched import bound_for
from autoquant.planner.layer_study import LayerStudy
from autoquant.planner.output import OutputDirectory
from autoquant.planner.parameters import unquantized
from autoquant.planner.plan import Plan
from autoquant.planner.process_evaluator import ProcessEvaluator
from autoquant.planner.progress import OnProgress, Progress, silent
from autoquant.planner.request import Preparation, Request, require_sensible
from autoquant.planner.search import SearchSettings, search
from autoquant.planner.selection import choose
from autoquant.planner.verdict import make_plan
from autoquant.planner.workload import WorkloadRequest
from autoquant.search_spaces.levers import asked_levers


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
    download: bool = True,
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
    space_file: str | Path | None = None,
    levers: Mapping[str, Sequence[Any]] | None = None,
    on_progress: OnProgress = silent,
) -> Plan:
    """Find the settings under which ``pipeline`` keeps a budget with the least loss of fidelity.

    Args:
        pipeline: A local directory, a hub id or ``"demo"``, measured in a process of its own; or a
            diffusers pipeline in memory, measured in this one and given back as it came.
        vram_gb: Peak memory of a call, weights included, in GiB.
        latency_s: Median wall seconds of a call.
        workload: Prompts, sizes and steps; what is left out comes from the pipeline.
        trials: Most candidates to measure.
        time_limit_s: Wall seconds after which no further candidate is started.
        seed: Seed of the search.
        metric: Deciding metric; ``auto`` is LPIPS where its weights can be had, else FLIP.
        clip_model: Guard against lost prompts: open_clip's ``MODEL:TAG``, or ``local-dir:PATH``.
        download: Whether metric weights that are not on this machine may be fetched.
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
        space_file: A YAML file that says what may be tried (search_spaces/space_file.py).
        levers: For each lever of ``search_spaces/levers.py`` the values to try instead of those
            that are open by themselves, like ``{"offload": ["none", "model"]}``.
        on_progress: Called after each step.

    Raises:
        InputError: An argument or the model is wrong.
        InfeasibleBudget: Nothing that was measured keeps the budget; the message names the nearest.
        SearchInterrupted: Ctrl-C came before anything fitted.
    """
    budget = Budget.of(vram_gb, latency_s, load_peak_gb, max_loss)
    settings = SearchSettings(trials=trials, time_limit_s=time_limit_s, seed=seed)
    request = Request(
        pipeline=str(pipeline) if isinstance(pipeline, Path) else pipeline,
        workload=workload or WorkloadRequest(),
        metric=metric,
        clip_model=clip_model,
        download=download,
        backends=None if backends is None else tuple(backends),
        device=device,
        compute_dtype=compute_dtype,
        revision=revision,
        variant=variant,
        trust_remote_code=trust_remote_code,
        space_file=None if space_file is None else str(space_file),
        levers=asked_levers(levers or {}),
    )
    with ExitStack() as stack:
        output = None
        if out is not None:
            output = stack.enter_context(OutputDirectory(Path(out), overwrite=overwrite))
        images = Path(stack.enter_context(TemporaryDirectory(prefix="autoquant-")))
        planned = plan_pipeline(request, budget, settings, images, on_progress)
        if output is not None:
            deliver(planned, output.partial)
            output.commit()
    return planned.plan


def plan_pipeline(
    request: Request,
    budget: Budget,
    settings: SearchSettings,
    image_root: Path,
    on_progress: OnProgress = silent,
) -> Planned:
    """``autoquant()`` with what is needed to hand the plan over.

    The images of each candidate are written below ``image_root``.
    """
    require_sensible(request)
    with ExitStack() as stack:
        on_progress(Progress("reference"))
        try:
            prepared, evaluator = _open(request, image_root, stack)
        except KeyboardInterrupt:
            raise SearchInterrupted("Interrupted before the reference was measured.") from None
        recorder = Recorder(evaluator)
        bound, prepared = bound_for(request.pipeline, prepared)
        layers = LayerStudy(
            evaluator,
            prepared.layer_groups,
            prepared.workload,
            unquantized(prepared.space, prepared.runtime),
            prepared.reference.measured,
        )
        result = search(
            recorder,
            prepared.space,
            budget,
            settings,
            prepared.runtime,
            on_progress,
            bound,
            layers,
        )
    try:
        selection = choose(result.trials, budget, result.pruned)
    except InfeasibleBudget as error:
        if result.interrupted:
            raise SearchInterrupted(
                f"Interrupted after {len(result.trials)} trials. {error}"
            ) from None
        raise
    on_progress(Progress("done", len(result.trials), len(result.trials), best=selection.chosen))
    chosen = selection.chosen.candidate
    return Planned(
        plan=make_plan(prepared, budget, settings, result, selection),
        reference_images=image_root / unquantized(prepared.space, prepared.runtime).digest,
        images=image_root / chosen.digest,
        candidate_images=image_root,
        components=recorder.answers[chosen.key].components,
    )


def _open(
    request: Request, image_root: Path, stack: ExitStack
) -> tuple[Preparation, AnsweringEvaluator]:
    """A worker measures what can be named; an object in memory is measured where it is."""
    if isinstance(request.pipeline, str):
        evaluator = stack.enter_context(ProcessEvaluator(request, image_root))
        return evaluator.preparation, evaluator
    from autoquant.planner.preparation import prepare

    return prepare(request, image_root)
