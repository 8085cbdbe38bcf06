"""What a metric said of a set of images, and the loss that follows from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict

PSNR_CAP_DB = 100.0
"""PSNR at and above which images count as identical, and the value that stands for an infinite one
(JSON has no infinity). It is an RMSE of 1e-5, 1/400 of one step of an 8-bit image."""


class MetricScore(BaseModel):
    """One metric over the images of one candidate, in the metric's own units.

    Attributes:
        mean: Mean over the images.
        low: Lower end of the 95% bootstrap interval of the mean; None for a single image.
        high: Upper end.
        worst: The value of the worst image.
        worst_index: Which image that is.
        per_image: The value of each image, in the order of the prompts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mean: float
    low: float | None
    high: float | None
    worst: float
    worst_index: int
    per_image: tuple[float, ...]


def _itself(value: float) -> float:
    return value


def _one_minus(value: float) -> float:
    return 1.0 - value


def _rmse(psnr_db: float) -> float:
    """Root mean square error from PSNR = -20 log10(RMSE), for values in [0, 1]."""
    return 0.0 if psnr_db >= PSNR_CAP_DB else 10.0 ** (-psnr_db / 20.0)


def _fall(points: float) -> float:
    return max(0.0, -points)


LOSS: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {
        "lpips": _itself,
        "flip": _itself,
        "ssim": _one_minus,
        "psnr": _rmse,
        "clip_image": _one_minus,
        "clip_delta": _fall,
    }
)
"""How one image's value becomes a loss: lower is better, 0 is identical. A metric that is not named
here is its own loss."""

GUARDS = frozenset({"clip_text", "clip_image", "clip_delta"})
"""Metrics that react to damage and hardly to drift. They warn, but no study can minimise them: they
can rise when a model is quantized."""


def losses_of(metric: str, score: MetricScore) -> tuple[float, ...]:
    """The loss of each image, in the order of the prompts."""
    return losses_from(metric, score.per_image)


def losses_from(metric: str, values: Iterable[float]) -> tuple[float, ...]:
    """Each value of a metric as a loss."""
    return tuple(map(LOSS.get(metric, _itself), values))


def loss_of(metric: str, score: MetricScore, noise_floor: float) -> float:
    """Mean loss of the images less ``noise_floor`` (a mean loss as well), at least 0."""
    losses = losses_of(metric, score)
    return max(0.0, math.fsum(losses) / len(losses) - noise_floor)
