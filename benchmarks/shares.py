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
    """A figure over the budgets, and its 95% interval under resampling of budgets (bootstrap).

    Attributes:
        is_bound: Whether the figure, and the ends of the interval, are no more than upper bounds.
    """

    value: float
    low: float
    high: float
    is_bound: bool

    @property
    def text(self) -> str:
        """The figure as a percentage."""
        bound = "≤ " if self.is_bound else ""
        return f"{bound}{self.value:.0%} ({self.low:.0%} to {self.high:.0%})"


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

    Attributes:
        runs: How many runs of the other method.
        never: Runs that were stopped before: they count with what they had paid by then, so that
            ``paid_s`` is less than the truth and the shares more.
        paid_s: Mean seconds of the other method.
        whole: Share that the whole of autoquant's search takes, until it ends by itself.
        found: Share that autoquant takes until it has found it, as the other method is counted.
    """

    runs: int
    never: int
    paid_s: float
    whole: Share
    found: Share


def compare(others: Sequence[Run], ours: Sequence[Run]) -> Comparison:
    """Compare ``others`` with the run of ``ours`` under the same budget."""
    by_budget = {run.budget: run for run in ours}
    pairs = [(run, by_budget[run.budget]) for run in others]
    reached = [run.seconds_to(our.loss) for run, our in pairs]
    paid = np.array(
        [
            run.seconds if seconds is None else seconds
            for (run, _), seconds in zip(pairs, reached, strict=True)
        ]
    )
    never = np.array([seconds is None for seconds in reached])
    budgets = np.array([run.budget for run, _ in pairs])
    whole = np.array([our.seconds for _, our in pairs])
    found = np.array([our.seconds_to(our.loss) for _, our in pairs], dtype=np.float64)
    return Comparison(
        runs=len(pairs),
        never=int(never.sum()),
        paid_s=float(paid.mean()),
        whole=_share(whole, paid, never, budgets),
        found=_share(found, paid, never, budgets),
    )


def _share(
    ours: NDArray[np.float64],
    others: NDArray[np.float64],
    never: NDArray[np.bool_],
    budgets: NDArray[np.int64],
) -> Share:
    # Where autoquant found nothing, it is matched for nothing.
    ratios = np.divide(ours, others, out=np.full(len(ours), np.inf), where=others > 0)
    middle = float(np.median(ratios))

    def of_sums(rows: NDArray[np.int64]) -> float:
        return float(ours[rows].sum() / others[rows].sum())

    def in_median(rows: NDArray[np.int64]) -> float:
        return float(np.median(ratios[rows]))

    return Share(
        of_sums=Estimate(
            float(ours.sum() / others.sum()), *_interval(of_sums, budgets), bool(never.any())
        ),
        # A bound that lies below the median anyway does not move it.
        in_median=Estimate(
            middle, *_interval(in_median, budgets), bool((ratios[never] > middle).any())
        ),
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
