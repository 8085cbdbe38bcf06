"""How much a candidate that was not measured is worth measuring.

Expected improvement under constraints: the mean by which a candidate undercuts the best one
measured, times the probability that it keeps the budget (M. Schonlau, W. J. Welch and D. R. Jones,
"Global versus local search in constrained optimization of computer models", 1998; J. R. Gardner et
al., "Bayesian Optimization with Inequality Constraints", ICML 2014). Losses are log-normal here,
and one below the noise floor is no better than one at it.
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_ndtr, ndtr

from autoquant.planner.budget import Budget
from autoquant.planner.effects import Floats
from autoquant.planner.forecast import Forecast

# A loss that is larger by this share counts as the same.
_AS_GOOD = 0.01


def probability_feasible(forecast: Forecast, budget: Budget) -> Floats:
    """Probability that each candidate keeps every limit but the one on the loss."""
    probability = np.ones(len(forecast.peak_gb))
    for limit, mean, sd in forecast.limited(budget):
        probability = probability * ndtr((limit - mean) / np.maximum(sd, 1e-12))
    return probability


def expected_improvement(forecast: Forecast, loss: float) -> Floats:
    """Mean by which each candidate's loss will fall below ``loss``, 0 where it does not."""
    floor = forecast.floor
    return np.maximum(_shortfall(forecast, loss + floor) - _shortfall(forecast, floor), 0.0)


def probability_as_good(forecast: Forecast, loss: float) -> Floats:
    """Probability that each candidate's loss is ``loss`` or less, but for a small share."""
    level = np.log((loss + forecast.floor) * (1 + _AS_GOOD))
    return np.asarray(ndtr((level - forecast.log_loss) / np.maximum(forecast.log_loss_sd, 1e-9)))


def expected_decrease(mean: Floats, sd: Floats, best: float) -> Floats:
    """Mean by which normal figures will fall below ``best``, 0 where they do not."""
    sd = np.maximum(sd, 1e-12)
    distance = (best - mean) / sd
    density = np.exp(-(distance**2) / 2) / np.sqrt(2 * np.pi)
    return np.asarray(sd * (distance * ndtr(distance) + density))


def expected_speedup(forecast: Forecast, latency_s: float, loss: float) -> Floats:
    """Mean share of ``latency_s`` that each candidate saves where its loss is ``loss`` or less."""
    saved = expected_decrease(forecast.latency_s, forecast.latency_s_sd, latency_s)
    return np.asarray(saved / latency_s * probability_as_good(forecast, loss))


def _shortfall(forecast: Forecast, level: float) -> Floats:
    """Mean of ``max(0, level - loss)`` for log-normal losses."""
    sd = np.maximum(forecast.log_loss_sd, 1e-9)
    distance = (np.log(level) - forecast.log_loss) / sd
    # The mean alone overflows where little is known; the mean below the level never does.
    below = np.exp(forecast.log_loss + sd**2 / 2 + log_ndtr(distance - sd))
    return np.asarray(level * ndtr(distance) - below)
