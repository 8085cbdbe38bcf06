"""Propose candidates: what is learned of each component's choices says which wholes promise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce

import numpy as np
from threadpoolctl import ThreadpoolController

from autoquant.planner.acquisition import (
    expected_decrease,
    expected_improvement,
    expected_speedup,
    probability_as_good,
    probability_feasible,
)
from autoquant.planner.axes import axes_of, indices_of, refused_pairs
from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.chance_to_run import Place, chances_to_run
from autoquant.planner.combinations import Combinations, combinations
from autoquant.planner.effects import Floats
from autoquant.planner.forecast import Forecast, Predictor
from autoquant.planner.measurement import Estimate, Measured, Prediction, Trial, in_session
from autoquant.planner.parameters import unquantized
from autoquant.planner.priors import Priors
from autoquant.planner.selection import is_feasible, objective_value
from autoquant.search_spaces.scheme import Choice
from autoquant.search_spaces.space import SearchSpace

# The search ends where the most promising candidate promises less than this share of the best loss,
# and at the same loss less than this share of the seconds; or, while nothing fits, where fewer than
# this many of all that are left are likely to.
_LEAST_GAIN = 0.001
_LEAST_SPEEDUP = 0.05
# Until so many trials were in vain, much less gain is enough.
_PATIENCE = 6
_DOUBTED_GAIN = 1e-6
_LEAST_DECREASE = 0.01
# With a tenth of a candidate expected to fit, one does in 10 of 100 cases.
_LEAST_FITTING = 0.1
# That nothing fits is believed no sooner.
_FEWEST = 6
# Losses lie between nothing and about this: what anything that fits is worth while nothing does.
_WORST_LOSS = 1.0


class Decomposition:
    """What to measure next, from what has been measured.

    The candidate that changes nothing comes first. Then, each time, the one of most expected
    improvement under what all measurements together say of each component's choices: be it an
    unknown choice that might be good, or a whole that known choices promise. Where no lower loss is
    promised, faster ones of the same loss follow.

    Attributes:
        is_out_of_promises: Whether the last proposal was ``None`` because no candidate is left that
            should improve on the best one.
        prediction: What the last proposal should cost; ``None`` for the first.
    """

    def __init__(self, space: SearchSpace, runtime: Runtime, budget: Budget) -> None:
        # Trials are looked at with their share of compiling already in their seconds.
        self._calls_per_session = budget.calls_per_session
        self._budget = budget.model_copy(update={"calls_per_session": None})
        self._unquantized = unquantized(space, runtime)
        self._runtime = runtime
        self._blas = ThreadpoolController()
        self._set_axes(space)
        self._estimates: tuple[Estimate, ...] = ()
        self._predictor: Predictor | None = None
        self.is_out_of_promises = False
        self.prediction: Prediction | None = None

    def _set_axes(self, space: SearchSpace) -> None:
        self._axes = axes_of(space, self._runtime)
        self._priors = Priors(self._axes)
        self._refused = [refused_pairs(axis, self._axes[-1], space) for axis in self._axes[:-1]]

    def extend(self, space: SearchSpace, estimates: Sequence[Estimate]) -> None:
        """Go on with a space that holds more choices, and what these should do."""
        self._set_axes(space)
        self._estimates += tuple(
            estimate.model_copy(
                update={"choice": space.components[estimate.component].offered(estimate.choice)}
            )
            for estimate in estimates
        )

    def loss_alone(self, component: str, choice: Choice) -> float:
        """What is known, when something was proposed last, of a choice with all else untouched."""
        alone = self._unquantized.model_copy(
            update={"components": {**self._unquantized.components, component: choice}}
        )
        at = indices_of(alone, self._axes)
        if self._predictor is None or at is None:
            return 0.0
        return self._predictor.forecast([np.array([place]) for place in at]).at(0).loss

    def propose(
        self,
        finished: Mapping[str, Trial],
        may_fit: Callable[[Candidate], bool] = lambda _: True,
    ) -> Candidate | None:
        """The next candidate that ``may_fit``, or ``None`` if nothing better can be predicted."""
        self.prediction = None
        reference = finished.get(self._unquantized.key)
        if reference is None:
            return self._unquantized
        if reference.measured is None:
            return None
        trials = [_in_session(trial, self._calls_per_session) for trial in finished.values()]
        # The matrices are so small that threads wait for each other far longer than they compute.
        with self._blas.limit(limits=1, user_api="blas"):
            return self._most_promising_candidate(reference.measured, trials, may_fit)

    def _most_promising_candidate(
        self,
        reference: Measured,
        trials: Sequence[Trial],
        may_fit: Callable[[Candidate], bool],
    ) -> Candidate | None:
        predictor = Predictor(
            self._priors,
            reference,
            trials,
            self._estimates,
            self._budget,
        )
        self._predictor = predictor
        placed = [
            (at, trial)
            for trial in trials
            if (at := indices_of(trial.candidate, self._axes)) is not None
        ]
        every = combinations(self._axes, self._refused, predictor.option_merits)
        open_to = every.without(at for at, _ in placed)
        forecast = predictor.forecast(open_to.positions).of(open_to.is_open)
        chance = probability_feasible(forecast, self._budget)
        chance = chance * self._chance_to_run(open_to, placed)

        def row_may_fit(row: int) -> bool:
            return may_fit(open_to.candidate(row))

        row = self._most_promising(forecast, chance, trials, row_may_fit)
        self.is_out_of_promises = row is None
        if row is None:
            return None
        self.prediction = forecast.at(row)
        return open_to.candidate(row)

    def _most_promising(
        self,
        forecast: Forecast,
        chance: Floats,
        trials: Sequence[Trial],
        may_fit: Callable[[int], bool],
    ) -> int | None:
        """The row to measure next, or ``None`` if none is worth it."""
        if len(chance) == 0:
            return None
        best = self._best(trials)
        if best is not None and self._budget.objective != "loss":
            return self._least(forecast, chance, best, may_fit)
        loss = _WORST_LOSS if best is None else best.loss
        most = loss if self._budget.max_loss is None else min(loss, self._budget.max_loss)
        gain = expected_improvement(forecast, most) * chance
        if best is None:
            if self._budget.max_loss is not None:
                chance = chance * probability_as_good(forecast, self._budget.max_loss)
            if chance.sum() >= _LEAST_FITTING:
                return _first(gain, -np.inf, may_fit)
            # What comes nearest says what would be enough, and whether predictions can be trusted.
            if sum(trial.bound_gb is None for trial in trials) >= _FEWEST:
                return None
            return _first(-forecast.missed_share(self._budget), -np.inf, may_fit)
        # That nothing is better may be predicted wrongly; what is likeliest to be better shows it.
        least = _LEAST_GAIN if self._trials_in_vain(trials, best) >= _PATIENCE else _DOUBTED_GAIN
        row = _first(gain, least * most, may_fit)
        if row is not None:
            return row
        speedup = expected_speedup(forecast, best.latency_s.median, best.loss) * chance
        return _first(speedup, _LEAST_SPEEDUP, may_fit)

    def _least(
        self, forecast: Forecast, chance: Floats, best: Measured, may_fit: Callable[[int], bool]
    ) -> int | None:
        """The row that promises most where seconds or memory are to be made least."""
        if self._budget.objective == "latency":
            mean, sd, least = forecast.latency_s, forecast.latency_s_sd, best.latency_s.median
        else:
            mean, sd, least = forecast.peak_gb, forecast.peak_gb_sd, best.peak_gb
        assert self._budget.max_loss is not None
        keeps = chance * probability_as_good(forecast, self._budget.max_loss)
        gain = expected_decrease(mean, sd, least) / least * keeps
        return _first(gain, _LEAST_DECREASE, may_fit)

    @staticmethod
    def _trials_in_vain(trials: Sequence[Trial], best: Measured) -> int:
        tried = [trial.measured for trial in trials if trial.bound_gb is None]
        return len(tried) - 1 - tried.index(best)

    def _best(self, trials: Sequence[Trial]) -> Measured | None:
        fitting = [
            trial.measured
            for trial in trials
            if trial.measured is not None and is_feasible(trial.measured, self._budget)
        ]
        return min(
            fitting,
            key=lambda m: (objective_value(m, self._budget), m.loss, m.latency_s.median),
            default=None,
        )

    def _chance_to_run(
        self, open_to: Combinations, placed: Sequence[tuple[Place, Trial]]
    ) -> Floats:
        """The product of what each option's chances are."""
        chances = chances_to_run(
            self._axes,
            ran=[at for at, trial in placed if trial.measured is not None],
            lost=[at for at, trial in placed if trial.failure or trial.is_under_way],
            # What needs too much memory says nothing of what is like it.
            faulty=[at for at, trial in placed if trial.failure and trial.bound_gb is None],
        )
        parts = [chance[at] for chance, at in zip(chances, open_to.positions, strict=True)]
        return reduce(np.multiply, parts)[open_to.is_open]


def _first(worth: Floats, least: float, may_fit: Callable[[int], bool]) -> int | None:
    """The row of most worth, above ``least``, that may fit."""
    # The first mostly does, and sorting takes longer than finding it.
    best = int(np.argmax(worth))
    if not worth[best] > least:
        return None
    if may_fit(best):
        return best
    for row in np.argsort(-worth, kind="stable")[1:]:
        if worth[row] <= least:
            return None
        if may_fit(int(row)):
            return int(row)
    return None


def _in_session(trial: Trial, calls_per_session: float | None) -> Trial:
    """Seconds for compiling are predicted as part of a call's, where a session is stated."""
    if trial.measured is None:
        return trial
    measured = in_session(trial.measured, calls_per_session)
    return trial.model_copy(update={"measured": measured})
