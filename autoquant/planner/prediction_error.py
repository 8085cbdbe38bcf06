"""How good the search's predictions were, from the trials that were measured after them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from autoquant.planner.measurement import Trial, in_session
from autoquant.planner.plan import PredictionError


def prediction_error(
    trials: Sequence[Trial], calls_per_session: float | None = None
) -> PredictionError | None:
    """Compare every prediction with its measurement; ``None`` if there was no prediction.

    Where a session is stated, its share of compiling is in the seconds that were predicted, and is
    added to those that were measured.
    """
    checked = [
        (t.predicted, in_session(t.measured, calls_per_session))
        for t in trials
        if t.predicted and t.measured
    ]
    if not checked:
        return None
    loss = [abs(m.loss - p.loss) for p, m in checked]
    peak = [abs(m.peak_gb - p.peak_gb) / m.peak_gb for p, m in checked]
    latency = [abs(m.latency_s.median - p.latency_s) / m.latency_s.median for p, m in checked]
    return PredictionError(
        checked=len(checked),
        loss_median=median(loss),
        loss_worst=max(loss),
        peak_median=median(peak),
        peak_worst=max(peak),
        latency_median=median(latency),
        latency_worst=max(latency),
    )
