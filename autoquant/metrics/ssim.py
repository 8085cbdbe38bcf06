"""Structural similarity.

Wang, Bovik, Sheikh and Simoncelli, "Image Quality Assessment: From Error Visibility to Structural
Similarity", IEEE Transactions on Image Processing 13 (2004): equation 13 with their constants.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoquant.errors import MetricUnavailable
from autoquant.metrics.images import Images
from autoquant.metrics.metric import Metric, MetricSettings

_SIGMA = 1.5
_RADIUS = 5
_WINDOW = 2 * _RADIUS + 1
_C1 = 0.01**2
_C2 = 0.03**2


class Ssim:
    """Mean SSIM over pixels and channels; 1 is identical.

    Edges are mirrored, as torchmetrics does, whose values these are.
    """

    name = "ssim"
    identity = f"ssim: Gaussian window {_WINDOW}, sigma {_SIGMA}, mean over RGB"
    lower_is_better = False

    def per_image(
        self, reference: Images, candidate: Images, prompts: Sequence[str]
    ) -> list[float]:
        """SSIM of each image."""
        return [_ssim(theirs, ours) for theirs, ours in zip(reference, candidate, strict=True)]


def _ssim(reference: Images, candidate: Images) -> float:
    # Variances of flat windows are differences of nearly equal numbers: in single precision their
    # rounding alone costs identical images 4e-5.
    x, y = reference.astype(np.float64), candidate.astype(np.float64)
    mean_x, mean_y = _windowed(x), _windowed(y)
    variance_x = _windowed(x * x) - mean_x**2
    variance_y = _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    structure = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
    return float((luminance * structure).mean())


def _windowed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian mean of the window around each pixel, same shape (H, W, 3)."""
    # Two passes of 11 taps: torch's one pass of 121 in double precision is thirty times slower.
    for axis in (0, 1):
        values = ndimage.gaussian_filter1d(values, _SIGMA, axis=axis, radius=_RADIUS, mode="mirror")
    return values


def make(settings: MetricSettings) -> Sequence[Metric]:
    """SSIM needs images of at least one whole window.

    Raises:
        MetricUnavailable: The images are smaller.
    """
    if min(settings.image_size) < _WINDOW:
        height, width = settings.image_size
        raise MetricUnavailable(
            f"SSIM needs at least {_WINDOW} pixels a side, images are {height}x{width}."
        )
    return [Ssim()]
