"""How good the search's predictions were, from the trials that were measured after them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from autoquant.planner.measurement import Trial
from autoquant.planner.plan import PredictionError


def prediction_error(trials: Sequence[Trial]) -> PredictionError | None:
    """Compare every prediction with its measurement; ``None`` if there was no prediction."""
    checked = [(t.predicted, t.measured) for t in trials if t.predicted and t.measured]
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
