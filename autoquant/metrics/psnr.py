"""Peak signal-to-noise ratio, in dB."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autoquant.metrics.images import Images
from autoquant.metrics.metric import Metric, MetricSettings
from autoquant.metrics.score import PSNR_CAP_DB


class Psnr:
    """``-10 log10`` of the mean squared error of values in [0, 1], capped for identical images."""

    name = "psnr"
    identity = f"psnr: sRGB values, at most {PSNR_CAP_DB:g} dB"
    lower_is_better = False

    def per_image(
        self, reference: Images, candidate: Images, prompts: Sequence[str]
    ) -> list[float]:
        """Decibels of each image."""
        squares = np.square(reference.astype(np.float64) - candidate).mean(axis=(1, 2, 3))
        return [_decibels(float(square)) for square in squares]


def _decibels(mean_squared_error: float) -> float:
    if mean_squared_error == 0:
        return PSNR_CAP_DB
    return min(PSNR_CAP_DB, -10 * math.log10(mean_squared_error))


def make(settings: MetricSettings) -> Sequence[Metric]:
    """PSNR needs nothing."""
    return [Psnr()]
