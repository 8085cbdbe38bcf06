"""``autoquant()``: a pipeline and a budget in, a measured plan out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from autoquant.errors import InfeasibleBudget, SearchInterrupted
from autoquant.metrics.fidelity import AUTO
from autoquant.metrics.metric import DEFAULT_CLIP_MODEL
from autoquant.planner.budget import Budget
from autoquant.planner.cache import cached_measurements, known_hashes
from autoquant.planner.delivery import deliver
from autoquant.planner.identity import Identity, identify
from autoquant.planner.joining import Sharing
from autoquant.planner.output import ResumableOutput, require_unfinished
from autoquant.planner.plan import Plan
from autoquant.planner.planning import plan_pipeline
from autoquant.planner.progress import OnProgress, silent
from autoquant.planner.request import Request, require_sensible
from autoquant.planner.search_settings import SearchSettings
from autoquant.planner.study_directory import STUDY, StudyDirectory
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
    ram_gb: float | None = None,
    objective: str = "loss",
    images_per_session: int | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    fresh: bool = False,
    cache: bool = True,
    sharing: Sharing | None = None,
    revision: str | None = None,
    variant: str | None = None,
    trust_remote_code: bool = False,
    space_file: str | Path | None = None,
    gguf_files: Sequence[str | Path] = (),
    checkpoints: Sequence[str | Path] = (),
    loras: Sequence[str | Path] = (),
    levers: Mapping[str, Sequence[Any]] | None = None,
    confirm: bool = True,
    stop_early: bool = True,
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
        ram_gb: Peak host memory of the measuring process above what it holds when idle, in GiB.
        objective: What is made least within the limits: ``loss``, ``latency`` or ``vram``; the
            latter two need ``max_loss``.
        images_per_session: How many images are drawn between two starts: the time for compiling is
            spread over them. By default it does not count.
        out: Directory for ``plan.json``, ``load_pipeline.py`` and the images, put in place whole.
            Its folder ``study`` keeps every measurement from the first one on: after an
            interruption the same call goes on from there.
        overwrite: Whether to replace what ``out`` holds.
        fresh: Whether to forget what an interrupted search in ``out`` has measured.
        cache: Whether to use and keep measurements in the user's cache directory
            (``$AUTOQUANT_CACHE``), so that another budget needs no second measurement.
        sharing: The Optuna storage in which other processes and machines can join
            (``autoquant worker``).
        revision: Hub revision.
        variant: Weight variant, like ``fp16``.
        trust_remote_code: Whether a pipeline may bring code of its own.
        space_file: A YAML file that says what may be tried (search_spaces/space_file.py).
        gguf_files: Existing GGUF files to try as the weights of the component that they fit.
        checkpoints: Model folders that were quantized before, to try as the weights of the
            component that they fit; ``component=FOLDER`` names it.
        loras: LoRA files that every candidate gets, ``FILE`` or ``FILE=SCALE``. A pipeline in
            memory keeps the adapters that are loaded and active.
        levers: For each lever of ``search_spaces/levers.py`` the values to try instead of those
            that are open by themselves, like ``{"offload": ["none", "model"]}``.
        confirm: Whether to draw the winner on prompts and seeds that the search never saw.
        stop_early: Whether to leave out a candidate's further images once it cannot be the plan.
        on_progress: Called after each step.

    Raises:
        InputError: An argument or the model is wrong.
        StudyDiffers: ``out`` holds a study of another model, workload, metric, device or versions.
        StudyInUse: Another run is measuring in ``out``.
        InfeasibleBudget: Nothing that was measured keeps the budget; the message names the nearest.
        SearchInterrupted: Ctrl-C came before anything fitted.
    """
    batch_size = 1 if workload is None else workload.batch_size
    budget = Budget.of(
        vram_gb,
        latency_s,
        load_peak_gb,
        max_loss,
        ram_gb,
        objective,
        None if images_per_session is None else images_per_session / batch_size,
    )
    settings = SearchSettings(
        trials=trials,
        time_limit_s=time_limit_s,
        seed=seed,
        confirm=confirm,
        stop_early=stop_early,
    )
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
        gguf_files=tuple(map(str, gguf_files)),
        checkpoints=tuple(map(str, checkpoints)),
        loras=tuple(map(str, loras)),
    )
    with ExitStack() as stack:
        require_sensible(request)
        output = None
        if out is None:
            root = Path(stack.enter_context(TemporaryDirectory(prefix="autoquant-")))
        else:
            output = ResumableOutput(Path(out), STUDY, overwrite=overwrite)
            root = output.path
        identity = _identify(request, cache=cache)
        study = stack.enter_context(
            StudyDirectory(root / STUDY, identity, fresh=fresh, overwrite=overwrite)
        )
        if output is not None and not overwrite:
            require_unfinished(output.path, budget)
        store = None if identity is None or not cache else cached_measurements(identity)
        try:
            planned = plan_pipeline(request, budget, settings, study, store, on_progress, sharing)
        except (InfeasibleBudget, SearchInterrupted) as error:
            if output is None or study.is_empty:
                raise
            raise type(error)(
                f"{error} What was measured is kept in {study.root}: the same command goes on."
            ) from None
        if output is not None:
            output.put(partial(deliver, planned))
            study.events("plan written", candidate=planned.plan.candidate.label)
    return planned.plan


def _identify(request: Request, *, cache: bool) -> Identity | None:
    known = known_hashes(use_cache=cache)
    identity = identify(request, known)
    known.save()
    return identity
