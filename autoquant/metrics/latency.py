"""Wall-clock seconds of one call, and what a handful of them says."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from autoquant.errors import InputError
from autoquant.metrics.device import synchronize

if TYPE_CHECKING:
    import torch


class LatencySummary(BaseModel):
    """Seconds per call over several calls.

    Attributes:
        median: The middle run.
        low: Lower quartile.
        high: Upper quartile; equal to the median and to ``low`` when there was one run only.
        runs: How many calls were timed.
        seconds: Each of them, in order; empty where they were not kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    median: float
    low: float
    high: float
    runs: int
    seconds: tuple[float, ...] = ()


class Stopwatch:
    """The wall time of one ``timed`` region, there once the region has ended."""

    seconds: float


def summarize(seconds: Sequence[float]) -> LatencySummary:
    """Summarize timed calls by their quartiles, which one slow run cannot move far.

    Quartiles are interpolated linearly between the sorted runs (Hyndman and Fan 1996, type 7).

    Raises:
        InputError: ``seconds`` is empty, or holds a number that is negative or not finite.
    """
    if not seconds or not all(math.isfinite(value) and value >= 0 for value in seconds):
        raise InputError(
            f"Latency needs one or more finite, non-negative times, got {list(seconds)!r}."
        )
    if len(seconds) == 1:
        only = float(seconds[0])
        return LatencySummary(median=only, low=only, high=only, runs=1, seconds=(only,))
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return LatencySummary(
        median=median, low=low, high=high, runs=len(seconds), seconds=tuple(seconds)
    )


@contextmanager
def timed(device: torch.device) -> Iterator[Stopwatch]:
    """Time a region, waiting for the device's queued work before the first and the last tick."""
    stopwatch = Stopwatch()
    synchronize(device)
    start = time.perf_counter()
    yield stopwatch
    synchronize(device)
    stopwatch.seconds = time.perf_counter() - start
