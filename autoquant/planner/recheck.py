"""Measure again what was decided by less than its own spread, with further seeds."""

from __future__ import annotations

from collections.abc import Sequence

from autoquant.errors import CandidateFailed, InfeasibleBudget
from autoquant.metrics.latency import summarize
from autoquant.metrics.statistics import mean_interval
from autoquant.planner.budget import Budget
from autoquant.planner.evaluator import Comparer
from autoquant.planner.measurement import Comparison, Measured, Trial, image_losses, in_session
from autoquant.planner.selection import choose, is_feasible, objective_value, relative_excess
from autoquant.planner.workload import Workload

_MOST_RECHECKS = 3


def further_seeds(workload: Workload) -> Workload:
    """The same prompts with as many seeds that were not used."""
    first = max(workload.seeds) + 1
    return workload.model_copy(update={"seeds": tuple(range(first, first + len(workload.seeds)))})


def near_limits(measured: Measured, budget: Budget) -> tuple[str, ...]:
    """The limits that lie within the spread of what was measured: seconds, loss."""
    near = []
    seconds = in_session(measured, budget.calls_per_session).latency_s
    if budget.latency_s is not None and seconds.low <= budget.latency_s <= seconds.high:
        near.append("latency_s")
    interval = mean_interval(image_losses(measured))
    if budget.max_loss is not None and interval.low is not None and interval.high is not None:
        low, high = interval.low - measured.noise_floor, interval.high - measured.noise_floor
        if low <= budget.max_loss <= high:
            near.append("max_loss")
    return tuple(near)


def recheck(
    trials: Sequence[Trial], budget: Budget, comparer: Comparer, workload: Workload
) -> tuple[Trial, ...]:
    """Measure again what the decision hangs on, three candidates at most.

    That is the choice, where it keeps a limit by less than its spread, and what would be better
    than the choice, where it misses one by less. Both are then decided on all images and calls.

    Returns:
        The trials with the new figures; how they compare with each other by image is left as it is.
    """
    known = list(trials)
    for _ in range(_MOST_RECHECKS):
        contested = _contested(known, budget)
        if contested is None:
            break
        assert contested.measured is not None
        try:
            drawn = comparer.compare(contested.candidate, further_seeds(workload))
        except CandidateFailed as failure:
            again = contested.model_copy(update={"measured": None, "failure": str(failure)})
        else:
            again = contested.model_copy(update={"measured": pooled(contested.measured, drawn)})
        known[known.index(contested)] = again
    return tuple(known)


def pooled(measured: Measured, drawn: Comparison) -> Measured:
    """``measured`` with loss and seconds over its own images and calls and the new ones."""
    ours, others = image_losses(measured), image_losses(drawn)
    n_images = len(ours) + len(others)
    floor = (measured.noise_floor * len(ours) + drawn.noise_floor * len(others)) / n_images
    seconds = (*measured.latency_s.seconds, *drawn.seconds)
    timed = measured.latency_s.seconds and drawn.seconds
    return measured.model_copy(
        update={
            "loss": max(0.0, sum((*ours, *others)) / n_images - floor),
            "latency_s": summarize(seconds) if timed else measured.latency_s,
            "further_images": len(others),
        }
    )


def _contested(trials: Sequence[Trial], budget: Budget) -> Trial | None:
    """What the decision hangs on and was not measured again yet, the best first."""
    close = [
        trial
        for trial in trials
        if trial.measured is not None
        and trial.measured.further_images == 0
        and near_limits(trial.measured, budget)
        and relative_excess(_with_near_kept(trial.measured, budget), budget) == 0
    ]
    try:
        chosen = choose(trials, budget).chosen
    except InfeasibleBudget:
        chosen = None
    if chosen in close:
        return chosen
    better = [trial for trial in close if _would_win(trial, chosen, budget)]
    return min(better, key=lambda trial: _value(trial, budget), default=None)


def _would_win(trial: Trial, chosen: Trial | None, budget: Budget) -> bool:
    assert trial.measured is not None
    if is_feasible(trial.measured, budget):
        return False
    return chosen is None or _value(trial, budget) < _value(chosen, budget)


def _value(trial: Trial, budget: Budget) -> float:
    assert trial.measured is not None
    return objective_value(trial.measured, budget)


def _with_near_kept(measured: Measured, budget: Budget) -> Measured:
    """``measured`` as if it kept the limits that lie within its spread."""
    kept = dict.fromkeys(near_limits(measured, budget), 0.0)
    seconds = measured.latency_s.model_copy(update={"median": 0.0})
    return measured.model_copy(
        update={
            "loss": kept.get("max_loss", measured.loss),
            "latency_s": seconds if "latency_s" in kept else measured.latency_s,
            "compile_s": 0.0 if "latency_s" in kept else measured.compile_s,
        }
    )
