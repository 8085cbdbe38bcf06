"""From a request to a plan: measure the reference, search, check the choice, write it up."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial

from autoquant import demo
from autoquant.errors import InfeasibleBudget, SearchInterrupted
from autoquant.planner.budget import Budget
from autoquant.planner.confirmation import Confirmation, confirm, unseen_workload
from autoquant.planner.delivery import Planned
from autoquant.planner.evaluator import Recorder
from autoquant.planner.events import logged
from autoquant.planner.footprint.searched import bound_for
from autoquant.planner.joining import Sharing, share
from autoquant.planner.layer_study import layer_study
from autoquant.planner.measurement_store import MeasurementStore
from autoquant.planner.measuring_process import WORKER
from autoquant.planner.parameters import unquantized
from autoquant.planner.payback import measure_payback
from autoquant.planner.progress import OnProgress, Progress, silent
from autoquant.planner.recheck import recheck, rechecks
from autoquant.planner.request import Preparation, Request
from autoquant.planner.search import search
from autoquant.planner.search_result import SearchResult
from autoquant.planner.search_settings import SearchSettings
from autoquant.planner.selection import Selection, choose
from autoquant.planner.shared_evaluator import SharedEvaluator
from autoquant.planner.source import DEMO
from autoquant.planner.starting import start_measuring
from autoquant.planner.stored_evaluator import StoredEvaluator
from autoquant.planner.study_directory import StudyDirectory
from autoquant.planner.study_record import NAME as STUDY_RECORD
from autoquant.planner.study_record import write_study
from autoquant.planner.verdict import make_plan
from autoquant.planner.workload import UNSEEN_PROMPTS


@dataclass(frozen=True)
class _Choice:
    """What was decided, from the trials as they were measured in the end."""

    result: SearchResult
    selection: Selection
    confirmation: Confirmation | None


def plan_pipeline(
    request: Request,
    budget: Budget,
    settings: SearchSettings,
    study: StudyDirectory,
    cache: MeasurementStore | None = None,
    on_progress: OnProgress = silent,
    sharing: Sharing | None = None,
    worker: str = WORKER,
) -> Planned:
    """``autoquant()`` with what is needed to hand the plan over.

    What ``study`` or ``cache`` hold is not measured again; what is measured goes into both.
    With ``sharing``, other processes measure for the same study. ``worker`` is the module that
    measures in a process of its own.

    Raises:
        InfeasibleBudget: Nothing that was measured keeps the budget.
        SearchInterrupted: Ctrl-C came before anything fitted.
    """
    with ExitStack() as stack:
        on_progress(Progress("reference"))
        start = partial(start_measuring, request, study, stack, budget.vram_gb, worker)
        try:
            evaluator = StoredEvaluator(
                study.store,
                start,
                cache,
                preparation_key=study.identity.key() if study.identity else "in memory",
                vram_gb=budget.vram_gb,
                on_event=study.events,
            )
        except KeyboardInterrupt:
            study.events("interrupted")
            raise SearchInterrupted("Interrupted before the reference was measured.") from None
        prepared, shared = evaluator.preparation, None
        if sharing is not None:
            shared = share(sharing, study.identity, request, budget, settings, prepared)
            prepared = shared.terms.preparation
        bound, prepared = bound_for(request.pipeline, prepared)
        answering = SharedEvaluator(shared, evaluator) if shared else evaluator
        recorder = Recorder(answering)
        result = search(
            recorder,
            prepared.space,
            budget,
            settings,
            prepared.runtime,
            logged(on_progress, study.events),
            bound,
            layer_study(answering, prepared),
            shared,
        )
        _record(result, budget, prepared, study)
        decided = _decide(result, budget, settings, prepared, evaluator, on_progress)
        return _planned(decided, budget, settings, prepared, evaluator, recorder, study)


def _record(
    result: SearchResult, budget: Budget, prepared: Preparation, study: StudyDirectory
) -> None:
    """Leave the search behind as an Optuna study, whatever becomes of the plan."""
    if result.interrupted:
        study.events("interrupted")
    metric = prepared.reference.measured.metric
    write_study(result, budget, prepared.class_name, metric, study.root / STUDY_RECORD)


def _decide(
    result: SearchResult,
    budget: Budget,
    settings: SearchSettings,
    prepared: Preparation,
    evaluator: StoredEvaluator,
    on_progress: OnProgress,
) -> _Choice:
    """Choose; unless it was interrupted, measure close decisions again, and on unseen prompts."""
    checks = settings.confirm and not result.interrupted
    if checks:
        with suppress(KeyboardInterrupt):  # the figures stand without it
            trials = recheck(result.trials, budget, evaluator, prepared.workload, on_progress)
            again = rechecks(result.trials, trials, budget)
            result = replace(result, trials=trials, rechecks=again)
    try:
        selection = choose(result.trials, budget, result.pruned)
    except InfeasibleBudget as error:
        if result.interrupted:
            raise SearchInterrupted(
                f"Interrupted after {len(result.trials)} trials. {error}"
            ) from None
        raise
    confirmation = None
    if checks:
        on_progress(Progress("confirmation", best=selection.chosen))
        unseen = unseen_workload(prepared.workload, _unseen_prompts(prepared))
        with suppress(KeyboardInterrupt):  # the plan stands without it
            selection, confirmation = confirm(selection, result.trials, budget, evaluator, unseen)
    n_trials = len(result.trials)
    on_progress(Progress("done", n_trials, n_trials, best=selection.chosen))
    return _Choice(result, selection, confirmation)


def _planned(
    decided: _Choice,
    budget: Budget,
    settings: SearchSettings,
    prepared: Preparation,
    evaluator: StoredEvaluator,
    recorder: Recorder,
    study: StudyDirectory,
) -> Planned:
    """Write up what was decided, with the files that belong to it."""
    result, selection = decided.result, decided.selection
    payback = measure_payback(
        selection.chosen,
        result.trials,
        None if result.interrupted else recorder,
        prepared.workload.batch_size,
    )
    chosen = selection.chosen.candidate
    return Planned(
        plan=make_plan(
            prepared.model_copy(update={"notes": (*prepared.notes, *evaluator.notes)}),
            budget,
            settings,
            result,
            selection,
            payback,
            confirmation=decided.confirmation,
        ),
        reference_images=evaluator.images_of(unquantized(prepared.space, prepared.runtime)),
        images=evaluator.images_of(chosen),
        candidate_images=study.store.image_root,
        components=recorder.answers[chosen.key].components,
    )


def _unseen_prompts(prepared: Preparation) -> tuple[str, ...]:
    """The demo knows no words but those of its own captions."""
    return demo.UNSEEN_PROMPTS if prepared.source.location == DEMO else UNSEEN_PROMPTS
