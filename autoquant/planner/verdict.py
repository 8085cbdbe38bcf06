"""Write up a finished search as a plan."""

from __future__ import annotations

from datetime import UTC, datetime

from autoquant import __version__
from autoquant.planner.budget import Budget
from autoquant.planner.confirmation import Confirmation
from autoquant.planner.measurement import Trial
from autoquant.planner.payback import CompilePayback
from autoquant.planner.plan import (
    FailedTrial,
    ParetoPoint,
    Plan,
    PlannedComponent,
    PlannedPipeline,
    PrunedTrial,
    ReferenceCost,
    SearchSummary,
)
from autoquant.planner.prediction_error import prediction_error
from autoquant.planner.reasons import reason, runtime_reason
from autoquant.planner.request import Preparation
from autoquant.planner.search_result import SearchResult
from autoquant.planner.search_settings import SearchSettings
from autoquant.planner.selection import RULES, Selection, is_feasible


def make_plan(
    prepared: Preparation,
    budget: Budget,
    settings: SearchSettings,
    result: SearchResult,
    selection: Selection,
    payback: CompilePayback | None = None,
    confirmation: Confirmation | None = None,
) -> Plan:
    """The plan for the chosen trial, with its evidence."""
    chosen, reference = selection.chosen, prepared.reference.measured
    assert chosen.measured is not None
    return Plan(
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        autoquant=__version__,
        pipeline=PlannedPipeline(
            class_name=prepared.class_name,
            source=prepared.source.location,
            revision=prepared.source.revision,
            variant=prepared.source.variant,
        ),
        budget=budget,
        workload=prepared.workload,
        components={
            name: PlannedComponent(
                **choice.model_dump(),
                why=reason(name, chosen, reference, result.trials, budget, result.sensitivity),
            )
            for name, choice in chosen.candidate.components.items()
        },
        runtime=chosen.candidate.runtime,
        runtime_why=runtime_reason(chosen, result.trials, budget),
        compile_payback=payback,
        adapters=prepared.adapters,
        measured=chosen.measured,
        reference=ReferenceCost(
            weights_gb=reference.weights_gb,
            peak_gb=reference.peak_gb,
            latency_s=reference.latency_s.median,
            fits=is_feasible(reference, budget),
        ),
        pareto=tuple(_pareto_point(trial, chosen, budget) for trial in selection.pareto),
        search=_summary(prepared, budget, settings, result, selection),
        sensitivity=result.sensitivity,
        confirmation=confirmation,
        device=prepared.device,
        versions=prepared.versions,
    )


def _summary(
    prepared: Preparation,
    budget: Budget,
    settings: SearchSettings,
    result: SearchResult,
    selection: Selection,
) -> SearchSummary:
    failed = [trial for trial in result.trials if trial.failure is not None]
    undrawn = [trial.measured.undrawn_images for trial in result.trials if trial.measured]
    return SearchSummary(
        trials=len(result.trials),
        pruned=len(result.pruned),
        failed=len(failed),
        seconds=result.seconds,
        seed=settings.seed,
        interrupted=result.interrupted,
        converged=result.converged,
        stopped=sum(map(bool, undrawn)),
        undrawn_images=sum(undrawn),
        rechecks=result.rechecks,
        prediction_error=prediction_error(result.trials, budget.calls_per_session),
        rule=RULES[budget.objective],
        ties=tuple(trial.candidate.label for trial in selection.tied),
        struck=prepared.space.struck,
        levers_struck=prepared.space.levers_struck,
        conflicts=prepared.space.conflicts,
        notes=prepared.notes,
        failures=tuple(
            FailedTrial(components=trial.candidate.components, reason=trial.failure or "")
            for trial in failed
        ),
        pruned_trials=tuple(
            PrunedTrial(
                components=trial.candidate.components,
                runtime=trial.candidate.runtime,
                bound_gb=trial.bound_gb,
                vram_gb=budget.vram_gb,
            )
            for trial in result.pruned
            if trial.bound_gb is not None and budget.vram_gb is not None
        ),
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
