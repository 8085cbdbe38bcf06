"""Compare ways to search, all on the same recorded table.

Each method gets the same random budgets (memory and latency) and pays the seconds that the recorded
trials took; asking twice for the same candidate is free. Prints a Markdown table and draws
docs/searching.svg:

    OMP_NUM_THREADS=1 python benchmarks/search_methods.py
"""

from __future__ import annotations

import argparse
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import fmean, median

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import optuna

from autoquant.errors import CandidateFailed
from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate
from autoquant.planner.measurement import Measured
from autoquant.planner.parameters import suggest
from autoquant.planner.search import search
from autoquant.planner.search_settings import SearchSettings
from autoquant.planner.selection import excess, is_feasible
from benchmarks.curves import Curve, draw_curves
from benchmarks.recorded_table import TABLE, RecordedTable
from benchmarks.rules_of_thumb import RULES

warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
optuna.logging.set_verbosity(optuna.logging.ERROR)

PICTURE = Path(__file__).parent.parent / "docs" / "searching.svg"
OURS = "autoquant"

SEEDS = 20
BUDGETS = 200
# The others are run under the first of the budgets only, which takes minutes enough.
OTHERS_BUDGETS = 40
# A method that knows no end is stopped after this many different candidates.
MOST_TRIALS = 150
# The GP sampler takes half a second a proposal.
GP_BUDGETS = 3
GP_TRIALS = 40
WITHIN = 0.01
# The largest budget, as a share of what the most expensive candidate needs.
BEYOND = 1.1


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
    """

    method: str
    budget: int
    best: float
    steps: tuple[Step, ...]

    @property
    def loss(self) -> float | None:
        """What was found."""
        return self.steps[-1].loss

    @property
    def seconds(self) -> float:
        """What it cost."""
        return self.steps[-1].seconds

    def seconds_to(self, loss: float | None) -> float | None:
        """When it had found something as good as ``loss``; None if never."""
        if loss is None:
            return None
        found = (s.seconds for s in self.steps if s.loss is not None and s.loss <= loss)
        return next(found, None)

    def loss_at(self, seconds: float) -> float | None:
        """What it had found by then."""
        known = [step.loss for step in self.steps if step.seconds <= seconds]
        return known[-1] if known else None


def is_within(loss: float | None, best: float) -> bool:
    """Whether a loss is within 1% of the best one."""
    return loss is not None and loss <= best * (1 + WITHIN)


def regret(loss: float | None, best: float, worst: float) -> float:
    """Distance from the best loss; nothing found counts as the worst loss of the table."""
    return (worst if loss is None else loss) - best


class Ledger:
    """Answers from the table and writes down what was paid and found."""

    def __init__(self, table: RecordedTable, budget: Budget) -> None:
        self._table = table
        self._budget = budget
        self._asked: set[str] = set()
        self.steps: list[Step] = []

    def measure(self, candidate: Candidate) -> Measured:
        """Answer, at a price the first time.

        Raises:
            CandidateFailed: It could not be measured, which costs as well.
        """
        loss = None
        try:
            measured = self._table.measure(candidate)
            if is_feasible(measured, self._budget):
                loss = measured.loss
        finally:
            if candidate.key not in self._asked:
                self._asked.add(candidate.key)
                self._pay(self._table.seconds(candidate), loss)
        return measured

    def _pay(self, seconds: float, loss: float | None) -> None:
        last = self.steps[-1] if self.steps else Step(0.0, None)
        known = [it for it in (last.loss, loss) if it is not None]
        self.steps.append(Step(last.seconds + seconds, min(known, default=None)))


def autoquant_search(table: RecordedTable, budget: Budget, seed: int) -> Ledger:
    """The search of this package, until it ends by itself."""
    ledger = Ledger(table, budget)
    search(ledger, table.space, budget, SearchSettings(trials=len(table), seed=seed))
    return ledger


def optuna_search(
    make: Callable[[int], optuna.samplers.BaseSampler],
    most: int,
    table: RecordedTable,
    budget: Budget,
    seed: int,
) -> Ledger:
    """What one would write: every parameter in one study, the limits as its constraints."""
    ledger = Ledger(table, budget)
    study = optuna.create_study(sampler=make(seed))
    for _ in range(3 * most):
        trial = study.ask()
        try:
            measured = ledger.measure(suggest(trial, table.space, table.runtimes[0]))
        except CandidateFailed:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        for name, missed in excess(measured, budget).items():
            trial.set_constraint(name, missed)
        study.tell(trial, measured.loss)
        if len(ledger.steps) >= most:
            break
    return ledger


def random_search(table: RecordedTable, budget: Budget, seed: int) -> Ledger:
    """Rows in random order."""
    ledger = Ledger(table, budget)
    for row in random.Random(seed).sample(range(len(table)), MOST_TRIALS):
        with suppress(CandidateFailed):
            ledger.measure(table.candidate(row))
    return ledger


Method = Callable[[RecordedTable, Budget, int], Ledger]
METHODS: dict[str, Method] = {
    OURS: autoquant_search,
    "Optuna TPE": partial(
        optuna_search,
        lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True),
        MOST_TRIALS,
    ),
    "Optuna NSGA-II": partial(
        optuna_search, lambda seed: optuna.samplers.NSGAIISampler(seed=seed), MOST_TRIALS
    ),
    "Optuna GP": partial(
        optuna_search,
        lambda seed: optuna.samplers.GPSampler(seed=seed, deterministic_objective=True),
        GP_TRIALS,
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
        peak = float(rng.uniform(peaks.min(), BEYOND * peaks.max()))
        latency = float(rng.uniform(seconds.min(), BEYOND * seconds.max()))
        fits = (peaks <= peak) & (seconds <= latency)
        if fits.any():
            budgets.append((Budget.of(peak, latency), float(losses[fits].min())))
    return budgets


def run_one(table: RecordedTable, method: str, place: int, seed: int) -> Run:
    """One method under one of the random budgets."""
    budget, best = _budgets(table)[place]
    return Run(method, place, best, tuple(METHODS[method](table, budget, seed).steps))


@cache
def _budgets(table: RecordedTable) -> list[tuple[Budget, float]]:
    return random_budgets(table, BUDGETS)


@cache
def _table(path: Path) -> RecordedTable:
    return RecordedTable(path)


def _run_at(path: Path, method: str, place: int, seed: int) -> Run:
    return run_one(_table(path), method, place, seed)


def run_all(
    path: Path, methods: Sequence[str], budgets: int, seeds: int, processes: int
) -> list[Run]:
    """Every method under every budget; those that depend on a seed with ``seeds`` seeds each."""
    tasks = []
    for method in methods:
        few = method == "Optuna GP"
        # What does not depend on its seed is run once.
        count = 1 if few or method == OURS else seeds
        most = GP_BUDGETS if few else budgets if method == OURS else OTHERS_BUDGETS
        for place in range(min(most, budgets)):
            for number in range(count):
                tasks.append((path, method, place, (place * count + number) % SEEDS))
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(_run_at, *zip(*tasks, strict=True), chunksize=5))


def methods_table(runs: Sequence[Run], table: RecordedTable) -> str:
    """One line a method: what it finds, and what that costs."""
    everything_s = sum(table.entries["columns"]["seconds"])
    ours = {run.budget: run for run in runs if run.method == OURS}
    lines = [
        "| method | runs | trials | cost | within 1% | within 1% at autoquant's cost "
        "| cost to autoquant's loss | autoquant's share of it |",
        "|---|---|---|---|---|---|---|---|",
        f"| exhaustive | 1 | {len(table)} | 100% | 100% | | 100% | |",
    ]
    for method in METHODS:
        mine = [run for run in runs if run.method == method]
        if not mine:
            continue
        pairs = [(run, ours[run.budget]) for run in mine]
        reached = [(run.seconds_to(our.loss), run, our) for run, our in pairs]
        missed = sum(seconds is None for seconds, _, _ in reached)
        # Who never got there would have had to pay more than this.
        paid = fmean(run.seconds if s is None else s for s, run, _ in reached)
        share = fmean(our.seconds for _, _, our in reached) / paid
        more = "≥ " if missed else ""
        less = "≤ " if missed else ""
        same = [is_within(run.loss_at(our.seconds), run.best) for run, our in pairs]
        cells = [
            method,
            f"{len(mine)}",
            f"{fmean(len(run.steps) for run in mine):.0f}",
            f"{fmean(run.seconds for run in mine) / everything_s:.1%}",
            f"{fmean(is_within(run.loss, run.best) for run in mine):.1%}",
            "" if method == OURS else f"{fmean(same):.1%}",
            ""
            if method == OURS
            else f"{more}{paid / everything_s:.1%}"
            + (f" ({missed / len(mine):.0%} never)" if missed else ""),
            "" if method == OURS else f"{less}{share:.0%}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def rules_table(
    runs: Sequence[Run], table: RecordedTable, budgets: Sequence[tuple[Budget, float]]
) -> str:
    """One line a rule: how often its plan keeps the budget, and how it compares then."""
    ours = {run.budget: run.loss for run in runs if run.method == OURS}
    lines = [
        "| rule of thumb | keeps the budget | as good as autoquant | worse | better "
        "| loss, median | autoquant's there |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rule in RULES.items():
        kept = []
        for place, (budget, _) in enumerate(budgets):
            planned = rule(table, budget)
            measured = None if planned is None else table.measure(planned)
            if measured is not None and is_feasible(measured, budget):
                kept.append((measured.loss, ours[place]))
        better = sum(our is None or rule_s < our for rule_s, our in kept)
        equal = sum(rule_s == our for rule_s, our in kept)
        middle = (_median_of(loss for loss, _ in kept), _median_of(o for _, o in kept))
        cells = [
            name,
            f"{len(kept) / len(budgets):.0%}",
            *(f"{n / len(budgets):.0%}" for n in (equal, len(kept) - better - equal, better)),
            *middle,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _median_of(losses: Iterator[float | None]) -> str:
    known = [loss for loss in losses if loss is not None]
    return f"{median(known):.4f}" if known else ""


def curves(runs: Sequence[Run], table: RecordedTable) -> list[Curve]:
    """For each method the share of runs within 1% of the best after each share of the cost."""
    everything_s = sum(table.entries["columns"]["seconds"])
    shares = np.geomspace(0.002, 0.2, 60)
    found = []
    for method in METHODS:
        mine = [run for run in runs if run.method == method]
        if mine:
            heights = [
                fmean(is_within(run.loss_at(share * everything_s), run.best) for run in mine)
                for share in shares
            ]
            # A curve ends where the method was stopped.
            end = max(run.seconds for run in mine) / everything_s if method != OURS else 1.0
            points = [(x, y) for x, y in zip(shares, heights, strict=True) if x <= end]
            found.append(Curve(method, tuple(points)))
    return found


def summary(runs: Sequence[Run], table: RecordedTable) -> str:
    """The aims, one line each, with what was reached."""
    everything_s = sum(table.entries["columns"]["seconds"])
    ours = [run for run in runs if run.method == OURS]
    worst_cost = max(run.seconds for run in ours) / everything_s
    empty = sum(run.loss is None for run in ours)
    return "\n".join(
        [
            f"autoquant: within 1% in {fmean(is_within(r.loss, r.best) for r in ours):.1%} of "
            f"{len(ours)} budgets; nothing that fits was found in {empty}",
            f"cost: {fmean(r.seconds for r in ours) / everything_s:.1%} of exhaustive in the mean, "
            f"{worst_cost:.1%} at most",
        ]
    )


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--budgets", type=int, default=BUDGETS)
    parser.add_argument("--seeds", type=int, default=1, help="seeds for each budget, of 20 in turn")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="methods to run")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    arguments = parser.parse_args()
    table = RecordedTable(arguments.table)
    methods = [OURS, *(m for m in METHODS if m != OURS and m in (arguments.only or METHODS))]
    runs = run_all(
        arguments.table, methods, arguments.budgets, arguments.seeds, arguments.processes
    )
    budgets = _budgets(table)[: arguments.budgets]
    print(f"{len(table)} candidates, {sum(table.entries['columns']['seconds']):.0f} s in all\n")
    print(methods_table(runs, table), end="\n\n")
    print(rules_table(runs, table, budgets), end="\n\n")
    print(summary(runs, table))
    draw_curves(
        arguments.picture,
        curves(runs, table),
        x_label="seconds spent, as a share of measuring all candidates",
        y_label="share of runs within 1% of the least loss",
    )


if __name__ == "__main__":
    main()
