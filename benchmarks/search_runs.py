"""Ways to search under random budgets, all paying what the recorded trials took."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import optuna

from autoquant.errors import CandidateFailed
from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate
from autoquant.planner.measurement import Measured
from autoquant.planner.parameters import suggest
from autoquant.planner.racing import Race
from autoquant.planner.search import search
from autoquant.planner.search_settings import SearchSettings
from autoquant.planner.selection import excess, is_feasible
from benchmarks.recorded_table import RecordedTable

warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
optuna.logging.set_verbosity(optuna.logging.ERROR)

OURS = "autoquant"
GP = "Optuna GP"
WITHIN = 0.01

# The largest budget, as a share of what the most expensive candidate needs.
_BEYOND = 1.1
# Every method measures so many candidates, so that it can be seen how it goes on.
_LEAST_TRIALS = 150
# Then one that knows no end is stopped when it has found what autoquant found, or made so many
# proposals. Most are repeats by then, and one more takes some hundredths of a second.
_MOST_PROPOSALS = 1000
# A proposal of the GP sampler takes a tenth of a second, and more with every trial.
_LEAST_GP_TRIALS, _MOST_GP_TRIALS = 60, 100


@dataclass(frozen=True)
class Step:
    """After one trial: the seconds spent so far, and the least loss that keeps the budget."""

    seconds: float
    loss: float | None


@dataclass(frozen=True)
class Run:
    """One method under one budget.

    Attributes:
        best: The least loss of all candidates that keep the budget.
        repeats: Proposals of candidates that were measured already, which cost nothing.
        rest_s: Mean seconds until what autoquant found, if the rest of the table were measured in
            random order from here on.
    """

    method: str
    budget: int
    best: float
    steps: tuple[Step, ...]
    repeats: int = 0
    rest_s: float = 0.0

    @property
    def loss(self) -> float | None:
        """What was found."""
        return self.steps[-1].loss

    @property
    def seconds(self) -> float:
        """What it cost."""
        return self.steps[-1].seconds

    def seconds_to(self, loss: float | None) -> float | None:
        """When it had found something as good as ``loss``; None if never.

        Having found nothing takes no time to match.
        """
        if loss is None:
            return 0.0
        return next((s.seconds for s in self.steps if is_within(s.loss, loss)), None)

    def loss_at(self, seconds: float) -> float | None:
        """What it had found by then."""
        known = [step.loss for step in self.steps if step.seconds <= seconds]
        return known[-1] if known else None


def is_within(loss: float | None, best: float) -> bool:
    """Whether a loss is within 1% of the best one."""
    return loss is not None and loss <= best * (1 + WITHIN)


class Ledger:
    """Answers from the table and writes down what was paid and found."""

    def __init__(self, table: RecordedTable, budget: Budget) -> None:
        self._table = table
        self._budget = budget
        self._asked: set[str] = set()
        self.steps: list[Step] = []
        self.repeats = 0

    def measure(self, candidate: Candidate, race: Race | None = None) -> Measured:
        """Answer, at a price the first time.

        Raises:
            CandidateFailed: It could not be measured, which costs as well.
        """
        loss = measured = None
        try:
            measured = self._table.measure(candidate, race)
            if measured.is_whole and is_feasible(measured, self._budget):
                loss = measured.loss
        finally:
            if candidate.key in self._asked:
                self.repeats += 1
            else:
                self._asked.add(candidate.key)
                self._pay(self._table.seconds(candidate, measured), loss)
        return measured

    def is_enough(self, target: float | None, least_trials: int = _LEAST_TRIALS) -> bool:
        """Whether there is nothing left to see: ``target`` is the loss that autoquant found."""
        if len(self.steps) < least_trials:
            return False
        return target is None or is_within(self.steps[-1].loss, target)

    def rest_s(self, target: float | None) -> float:
        """Mean seconds to something as good as ``target`` among the other rows, in random order.

        Of n rows with k good ones, (n + 1) / (k + 1) are drawn in the mean, the good one among
        them.
        """
        if target is None or is_within(self.steps[-1].loss, target):
            return 0.0
        candidates = map(self._table.candidate, range(len(self._table)))
        others = [it for it in candidates if it.key not in self._asked]
        good = sum(self._is_as_good(candidate, target) for candidate in others)
        seconds = [self._table.seconds(candidate) for candidate in others]
        return (len(others) + 1) / (good + 1) * sum(seconds) / len(seconds)

    def _is_as_good(self, candidate: Candidate, target: float) -> bool:
        try:
            measured = self._table.measure(candidate)
        except CandidateFailed:
            return False
        return is_feasible(measured, self._budget) and is_within(measured.loss, target)

    def _pay(self, seconds: float, loss: float | None) -> None:
        last = self.steps[-1] if self.steps else Step(0.0, None)
        known = [it for it in (last.loss, loss) if it is not None]
        self.steps.append(Step(last.seconds + seconds, min(known, default=None)))


def autoquant_search(
    table: RecordedTable, budget: Budget, seed: int, target: float | None = None
) -> Ledger:
    """The search of this package, until it ends by itself."""
    ledger = Ledger(table, budget)
    search(ledger, table.space, budget, SearchSettings(trials=len(table), seed=seed))
    return ledger


def optuna_search(
    make: Callable[[int], optuna.samplers.BaseSampler],
    least_trials: int,
    most_trials: int | None,
    table: RecordedTable,
    budget: Budget,
    seed: int,
    target: float | None,
) -> Ledger:
    """What one would write: every parameter in one study, the limits as its constraints."""
    ledger = Ledger(table, budget)
    study = optuna.create_study(sampler=make(seed))
    for _ in range(_MOST_PROPOSALS):
        trial = study.ask()
        try:
            measured = ledger.measure(suggest(trial, table.space, table.runtimes[0]))
        except CandidateFailed:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        for name, missed in excess(measured, budget).items():
            trial.set_constraint(name, missed)
        study.tell(trial, measured.loss)
        if ledger.is_enough(target, least_trials):
            break
        if len(ledger.steps) == (most_trials or len(table)):
            break
    return ledger


def random_search(
    table: RecordedTable, budget: Budget, seed: int, target: float | None = None
) -> Ledger:
    """Rows in random order."""
    ledger = Ledger(table, budget)
    for row in random.Random(seed).sample(range(len(table)), len(table)):
        with suppress(CandidateFailed):
            ledger.measure(table.candidate(row))
        if ledger.is_enough(target):
            break
    return ledger


Method = Callable[[RecordedTable, Budget, int, float | None], Ledger]
METHODS: dict[str, Method] = {
    OURS: autoquant_search,
    "Optuna TPE": partial(
        optuna_search,
        lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True),
        _LEAST_TRIALS,
        None,
    ),
    "Optuna NSGA-II": partial(
        optuna_search,
        lambda seed: optuna.samplers.NSGAIISampler(seed=seed),
        _LEAST_TRIALS,
        None,
    ),
    GP: partial(
        optuna_search,
        lambda seed: optuna.samplers.GPSampler(seed=seed, deterministic_objective=True),
        _LEAST_GP_TRIALS,
        _MOST_GP_TRIALS,
    ),
    "random": random_search,
}


def random_budgets(table: RecordedTable, count: int) -> list[tuple[Budget, float]]:
    """Budgets that something keeps, uniform in memory and latency, and the best loss under each."""
    measured = list(table.all_measured())
    peaks = np.array([m.peak_gb for m in measured])
    seconds = np.array([m.latency_s.median for m in measured])
    losses = np.array([m.loss for m in measured])
    rng = np.random.default_rng(0)
    budgets = []
    while len(budgets) < count:
        peak = float(rng.uniform(peaks.min(), _BEYOND * peaks.max()))
        latency = float(rng.uniform(seconds.min(), _BEYOND * seconds.max()))
        fits = (peaks <= peak) & (seconds <= latency)
        if fits.any():
            budgets.append((Budget.of(peak, latency), float(losses[fits].min())))
    return budgets
