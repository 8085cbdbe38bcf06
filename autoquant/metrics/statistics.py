"""Intervals for means of few, paired, heavy-tailed scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, stdtrit

from autoquant.errors import InputError

CONFIDENCE = 0.95
RESAMPLES = 4000
SEED = 0


class MeanInterval(NamedTuple):
    """A mean and its 95% interval; ``low`` and ``high`` are None where one value tells nothing."""

    mean: float
    low: float | None
    high: float | None


def mean_interval(values: Sequence[float]) -> MeanInterval:
    """Bootstrap the mean of ``values``; the same values always give the same interval.

    The percentile interval of n values is too narrow by about ``sqrt((n - 1) / n)`` and by using
    normal quantiles where n is small. It is widened by the expanded percentiles of Hesterberg,
    "What Teachers Should Know About the Bootstrap", The American Statistician 69 (2015).

    Raises:
        InputError: ``values`` is empty or holds something that is not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0 or not np.isfinite(sample).all():
        raise InputError(f"An interval needs one or more finite numbers, got {list(values)!r}.")
    n = sample.size
    mean = math.fsum(sample) / n
    if n == 1:
        return MeanInterval(mean, None, None)
    rng = np.random.default_rng(SEED)
    means = sample[rng.integers(n, size=(RESAMPLES, n))].mean(axis=1)
    tail = ndtr(math.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 - CONFIDENCE) / 2))
    low, high = np.quantile(means, [tail, 1 - tail])
    # Sums round: the mean of equal values can lie a last digit beside them.
    low, high = np.clip([low, high], sample.min(), sample.max())
    return MeanInterval(mean, min(float(low), mean), max(float(high), mean))


def paired_difference(a: Sequence[float], b: Sequence[float]) -> MeanInterval:
    """Mean of ``a - b`` over pairs (same prompt, same seed), with its 95% interval.

    An interval that holds 0 says that the two lie within the spread; None says that nothing is
    known. Pairing takes out what a prompt does to both.

    Raises:
        InputError: The lengths differ, or a value is not finite, or there is none.
    """
    if len(a) != len(b):
        raise InputError(f"Paired scores must have equal lengths, got {len(a)} and {len(b)}.")
    return mean_interval([left - right for left, right in zip(a, b, strict=True)])
