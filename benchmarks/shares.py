"""Of what another method pays to find as much, which share autoquant pays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.search_runs import Run

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A figure over the budgets, and its 95% interval under resampling of budgets (bootstrap)."""

    value: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """The figure as a percentage."""
        return f"{self.value:.0%} ({self.low:.0%} to {self.high:.0%})"


@dataclass(frozen=True)
class Share:
    """autoquant's cost against that of another method, both in seconds.

    Attributes:
        of_sums: Ratio of the costs summed over all runs.
        in_median: Median over the runs of the ratio.
    """

    of_sums: Estimate
    in_median: Estimate


@dataclass(frozen=True)
class Comparison:
    """What one method pays for a loss within 1% of autoquant's, and what autoquant pays.

    A run that was stopped before it got there is taken to go on in random order.

    Attributes:
        runs: How many runs of the other method.
        never: How many of them were stopped.
        paid_s: Mean seconds of the other method.
        stopped_s: The same without going on: less than the truth.
        most: Ratio of the sums without going on: more than the truth.
        whole: Share that the whole of autoquant's search takes, until it ends by itself.
        found: Share that autoquant takes until it has found it, as the other method is counted.
    """

    runs: int
    never: int
    paid_s: float
    stopped_s: float
    most: float
    whole: Share
    found: Share


def compare(others: Sequence[Run], ours: Sequence[Run]) -> Comparison:
    """Compare ``others`` with the run of ``ours`` under the same budget."""
    by_budget = {run.budget: run for run in ours}
    pairs = [(run, by_budget[run.budget]) for run in others]
    reached = [run.seconds_to(our.loss) for run, our in pairs]
    stopped = np.array(
        [
            run.seconds if seconds is None else seconds
            for (run, _), seconds in zip(pairs, reached, strict=True)
        ]
    )
    never = np.array([seconds is None for seconds in reached])
    paid = stopped + np.where(never, [run.rest_s for run, _ in pairs], 0.0)
    budgets = np.array([run.budget for run, _ in pairs])
    whole = np.array([our.seconds for _, our in pairs])
    found = np.array([our.seconds_to(our.loss) for _, our in pairs], dtype=np.float64)
    return Comparison(
        runs=len(pairs),
        never=int(never.sum()),
        paid_s=float(paid.mean()),
        stopped_s=float(stopped.mean()),
        most=float(whole.sum() / stopped.sum()),
        whole=_share(whole, paid, budgets),
        found=_share(found, paid, budgets),
    )


def _share(
    ours: NDArray[np.float64], others: NDArray[np.float64], budgets: NDArray[np.int64]
) -> Share:
    # Where autoquant found nothing, it is matched for nothing.
    ratios = np.divide(ours, others, out=np.full(len(ours), np.inf), where=others > 0)

    def of_sums(rows: NDArray[np.int64]) -> float:
        return float(ours[rows].sum() / others[rows].sum())

    def in_median(rows: NDArray[np.int64]) -> float:
        return float(np.median(ratios[rows]))

    every = np.arange(len(ours))
    return Share(
        of_sums=Estimate(of_sums(every), *_interval(of_sums, budgets)),
        in_median=Estimate(in_median(every), *_interval(in_median, budgets)),
    )


def _interval(
    figure: Callable[[NDArray[np.int64]], float], budgets: NDArray[np.int64]
) -> tuple[float, float]:
    """Runs under one budget are drawn together: they share what makes it hard."""
    rows = [np.flatnonzero(budgets == budget) for budget in np.unique(budgets)]
    rng = np.random.default_rng(0)
    drawn = [
        figure(np.concatenate([rows[place] for place in rng.integers(len(rows), size=len(rows))]))
        for _ in range(_RESAMPLES)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)
