"""Measure again what was decided by less than its own spread, with further seeds."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from autoquant.errors import CandidateFailed, InfeasibleBudget
from autoquant.metrics.latency import summarize
from autoquant.metrics.statistics import mean_interval
from autoquant.planner.budget import Budget
from autoquant.planner.evaluator import Comparer
from autoquant.planner.measurement import (
    Comparison,
    Measured,
    Trial,
    image_losses,
    in_session,
    seconds_a_call,
)
from autoquant.planner.progress import OnProgress, Progress, silent
from autoquant.planner.quantities import seconds
from autoquant.planner.selection import choose, is_feasible, objective_value, relative_excess
from autoquant.planner.workload import Workload

_MOST_RECHECKS = 3
_LIMITS = {"latency_s": "latency", "max_loss": "loss"}


class Recheck(BaseModel):
    """What came out for a candidate that was measured again.

    Attributes:
        label: The candidate.
        limits: The limits that lay within its spread: ``latency_s``, ``max_loss``.
        further_images: How many images were drawn in addition.
        loss_before: Its loss before that.
        loss: Its loss on all images; ``None`` if it could not be drawn again.
        latency_before_s: Its seconds of a call before that, as the limit counts them.
        latency_s: Its seconds over all calls.
        keeps: Whether it keeps every limit now.
        failure: Why it could not be drawn again.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    label: str
    limits: tuple[str, ...]
    further_images: int
    loss_before: float
    loss: float | None
    latency_before_s: float
    latency_s: float | None
    keeps: bool
    failure: str | None = None

    @property
    def sentence(self) -> str:
        """What was found, for people."""
        limits = " and ".join(f"the {_LIMITS[name]} limit" for name in self.limits)
        text = f"Measured again, as {limits} lay within its spread: {self.label}: "
        if self.loss is None or self.latency_s is None:
            return f"{text}{self.failure}"
        figures = {
            "max_loss": f"loss {self.loss_before:.4g} became {self.loss:.4g}",
            "latency_s": f"{seconds(self.latency_before_s)} became {seconds(self.latency_s)}",
        }
        changes = " and ".join(figures[name] for name in self.limits)
        found = "keeps the budget" if self.keeps else "misses the budget"
        return f"{text}{changes} with {self.further_images} images of further seeds; it {found}."


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
    trials: Sequence[Trial],
    budget: Budget,
    comparer: Comparer,
    workload: Workload,
    on_progress: OnProgress = silent,
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
        on_progress(Progress("recheck", best=contested))
        try:
            drawn = comparer.compare(contested.candidate, further_seeds(workload))
        except CandidateFailed as failure:
            again = contested.model_copy(update={"measured": None, "failure": str(failure)})
        else:
            again = contested.model_copy(update={"measured": pooled(contested.measured, drawn)})
        known[known.index(contested)] = again
    return tuple(known)


def rechecks(
    before: Sequence[Trial], after: Sequence[Trial], budget: Budget
) -> tuple[Recheck, ...]:
    """What ``recheck`` changed, in the order of the trials."""
    return tuple(
        _recheck(trial, trial.measured, again, budget)
        for trial, again in zip(before, after, strict=True)
        if trial.measured is not None and again != trial
    )


def _recheck(trial: Trial, measured: Measured, again: Trial, budget: Budget) -> Recheck:
    now = again.measured
    calls = budget.calls_per_session
    return Recheck(
        label=trial.candidate.label,
        limits=near_limits(measured, budget),
        further_images=0 if now is None else now.further_images,
        loss_before=measured.loss,
        loss=None if now is None else now.loss,
        latency_before_s=seconds_a_call(measured, calls),
        latency_s=None if now is None else seconds_a_call(now, calls),
        keeps=now is not None and is_feasible(now, budget),
        failure=again.failure,
    )


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
        and trial.measured.is_whole
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
