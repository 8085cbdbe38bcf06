"""Which of the measured candidates is the plan: pure functions over trials."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from autoquant.errors import InfeasibleBudget
from autoquant.metrics.statistics import paired_difference
from autoquant.planner.budget import Budget, Objective
from autoquant.planner.measurement import Measured, Trial, image_losses, in_session, seconds_a_call
from autoquant.planner.quantities import gigabytes, seconds

_THEN_LOSS = "the one with the least loss; among those whose loss cannot be told apart, the "
RULES: Mapping[Objective, str] = MappingProxyType(
    {
        "loss": (
            "least loss; among candidates whose loss cannot be told from it, the fastest; among "
            "those whose latency cannot be told apart, the one with the lowest peak memory"
        ),
        "latency": (
            "fastest; among candidates whose latency cannot be told from it, "
            f"{_THEN_LOSS}one with the lowest peak memory"
        ),
        "vram": (f"lowest peak memory; among candidates within 1% of it, {_THEN_LOSS}fastest"),
    }
)
"""How the choice is made among the candidates that keep every limit, by objective."""

SAME_PEAK = 1.01
"""Peaks whose ratio is no more than this are equal."""


@dataclass(frozen=True)
class Selection:
    """The chosen trial, the ones that cannot be told from it, and the Pareto set.

    The choice and the unquantized pipeline are in the set in any case.
    """

    chosen: Trial
    tied: tuple[Trial, ...]
    pareto: tuple[Trial, ...]


def excess(measured: Measured, budget: Budget) -> dict[str, float]:
    """How far each stated limit is missed; 0 or less means that it is kept."""
    values = _limited(measured, budget)
    limits = {name: getattr(budget, name) for name in values}
    return {name: values[name] - limit for name, limit in limits.items() if limit is not None}


def is_feasible(measured: Measured, budget: Budget) -> bool:
    """Whether every stated limit is kept."""
    return all(missed <= 0 for missed in excess(measured, budget).values())


def pareto_set(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """Measured trials that no other beats in loss, peak memory and latency, smallest peak first."""
    measured = [trial for trial in trials if trial.measured is not None]
    front = [trial for trial in measured if not any(_dominates(other, trial) for other in measured)]
    return _smallest_first(front)


def choose(trials: Sequence[Trial], budget: Budget, pruned: Sequence[Trial] = ()) -> Selection:
    """Choose by ``RULES`` among the feasible trials.

    Args:
        trials: What was measured, or failed.
        budget: The limits.
        pruned: What was ruled out unmeasured; it is only named where nothing fits.

    Raises:
        InfeasibleBudget: No measured trial keeps every limit; the message names the nearest.
    """
    feasible = [
        trial
        for trial in trials
        if trial.measured is not None
        and trial.measured.is_whole
        and is_feasible(trial.measured, budget)
    ]
    if not feasible:
        ruled_out = _ruled_out(pruned)
        raise InfeasibleBudget(" ".join([_nearest_point(trials, budget), *ruled_out]))
    chosen, tied = _by_rule(feasible, budget)
    # By its rule the choice may lose to a tied trial in all three by less than a spread.
    # The unquantized pipeline is what everything is compared with, on the front or not.
    unquantized = [trial for trial in trials if trial.measured and trial.candidate.is_reference][:1]
    front = {trial.number: trial for trial in (*pareto_set(trials), chosen, *unquantized)}
    return Selection(chosen, tied, _smallest_first(front.values()))


def _by_rule(feasible: Sequence[Trial], budget: Budget) -> tuple[Trial, tuple[Trial, ...]]:
    """The choice, and those that its first criterion cannot tell from the best."""
    quickest = partial(_quickest, budget=budget)
    if budget.objective == "latency":
        first = quickest(feasible)
        chosen = _smallest(_least_damaged(first))
    elif budget.objective == "vram":
        least = min(_measured(trial).peak_gb for trial in feasible)
        first = [trial for trial in feasible if _measured(trial).peak_gb <= SAME_PEAK * least]
        chosen = quickest(_least_damaged(first))[0]
    else:
        first = _least_damaged(feasible)
        chosen = _smallest(quickest(first))
    return chosen, tuple(trial for trial in first if trial is not chosen)


def _least_damaged(trials: Sequence[Trial]) -> list[Trial]:
    best = min(trials, key=lambda trial: (_measured(trial).loss, trial.number))
    return [trial for trial in trials if _same_loss(trial, best)]


def _quickest(trials: Sequence[Trial], budget: Budget) -> list[Trial]:
    """Those whose latency cannot be told from the least, the fastest first."""
    session = {
        trial.number: in_session(_measured(trial), budget.calls_per_session).latency_s
        for trial in trials
    }
    fastest_first = sorted(trials, key=lambda t: (session[t.number].median, t.number))
    least = session[fastest_first[0].number]
    return [trial for trial in fastest_first if session[trial.number].low <= least.high]


def _smallest(trials: Sequence[Trial]) -> Trial:
    return min(trials, key=lambda t: (_measured(t).peak_gb, _measured(t).loss, t.number))


def _limited(measured: Measured, budget: Budget) -> dict[str, float]:
    """What was measured, under the names of the limits."""
    values = {
        "vram_gb": measured.peak_gb,
        "latency_s": seconds_a_call(measured, budget.calls_per_session),
        "load_peak_gb": measured.load_peak_gb,
        "max_loss": measured.loss,
    }
    return values if measured.ram_gb is None else {**values, "ram_gb": measured.ram_gb}


def objective_value(measured: Measured, budget: Budget) -> float:
    """What the study minimises: a loss, seconds of a call, or GiB."""
    if budget.objective == "latency":
        return seconds_a_call(measured, budget.calls_per_session)
    return measured.peak_gb if budget.objective == "vram" else measured.loss


def _smallest_first(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    return tuple(sorted(trials, key=lambda trial: (_measured(trial).peak_gb, trial.number)))


def _measured(trial: Trial) -> Measured:
    assert trial.measured is not None
    return trial.measured


def _objectives(trial: Trial) -> tuple[float, float, float]:
    measured = _measured(trial)
    return measured.loss, measured.peak_gb, measured.latency_s.median


def _dominates(one: Trial, other: Trial) -> bool:
    ours, theirs = _objectives(one), _objectives(other)
    return ours != theirs and all(a <= b for a, b in zip(ours, theirs, strict=True))


def _same_loss(trial: Trial, best: Trial) -> bool:
    ours, theirs = _measured(trial), _measured(best)
    if ours.loss == theirs.loss:
        return True
    difference = paired_difference(image_losses(ours), image_losses(theirs))
    if difference.low is None or difference.high is None:
        return False
    return difference.low <= 0 <= difference.high


def _nearest_point(trials: Sequence[Trial], budget: Budget) -> str:
    measured = [trial for trial in trials if trial.measured is not None]
    if not measured:
        reasons = sorted({trial.failure for trial in trials if trial.failure})
        return "No candidate could be measured: " + "; ".join(reasons[:3])
    smallest = min(measured, key=lambda trial: _measured(trial).peak_gb)
    nearest = min(
        measured, key=lambda trial: (relative_excess(_measured(trial), budget), trial.number)
    )
    parts = [
        f"Nothing that was measured keeps {describe(budget)}.",
        f"{_needs(nearest, budget)} would be enough for {nearest.candidate.label};",
        f"the smallest found needs {gigabytes(_measured(smallest).peak_gb)}",
    ]
    if budget.latency_s is not None:
        fastest = min(measured, key=lambda trial: _measured(trial).latency_s.median)
        parts[-1] += f", the fastest takes {seconds(_measured(fastest).latency_s.median)}"
    return " ".join(parts) + "."


def _ruled_out(pruned: Sequence[Trial]) -> Iterator[str]:
    """The smallest that was never loaded."""
    bounds = [(trial.bound_gb, trial.candidate.label) for trial in pruned if trial.bound_gb]
    if bounds:
        bound_gb, label = min(bounds)
        yield (
            f"{len(bounds)} candidates were ruled out unmeasured: the smallest, {label}, needs at "
            f"least {gigabytes(bound_gb)}."
        )


def describe(budget: Budget) -> str:
    """The stated limits in words."""
    limits = [
        ("{} of memory", budget.vram_gb, gigabytes),
        ("{} a call", budget.latency_s, seconds),
        ("{} while loading", budget.load_peak_gb, gigabytes),
        ("{} of host memory", budget.ram_gb, gigabytes),
        ("a loss of {}", budget.max_loss, "{:g}".format),
    ]
    stated = [text.format(unit(limit)) for text, limit, unit in limits if limit is not None]
    return " and ".join(stated) or "no limit at all"


def rank(trial: Trial, budget: Budget) -> tuple[float, float, int]:
    """Order of merit: feasible ones by objective, then by how far they miss, then failed ones."""
    if trial.measured is None:
        return (math.inf, math.inf, trial.number)
    value = objective_value(trial.measured, budget)
    return (relative_excess(trial.measured, budget), value, trial.number)


def relative_excess(measured: Measured, budget: Budget) -> float:
    """Sum of the missed shares of the limits; 0 is feasible."""
    return budget.missed_share(_limited(measured, budget))


def _needs(trial: Trial, budget: Budget) -> str:
    measured = _measured(trial)
    missed = {name for name, by in excess(measured, budget).items() if by > 0}
    texts = {
        "vram_gb": gigabytes(measured.peak_gb),
        "latency_s": seconds(seconds_a_call(measured, budget.calls_per_session)),
        "load_peak_gb": f"{gigabytes(measured.load_peak_gb)} while loading",
        "ram_gb": f"{gigabytes(measured.ram_gb or 0.0)} of host memory",
        "max_loss": f"a loss of {measured.loss:.4g}",
    }
    return " and ".join(text for name, text in texts.items() if name in missed)
