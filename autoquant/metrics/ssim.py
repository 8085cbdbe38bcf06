"""Structural similarity (Wang et al. 2004, "Image Quality Assessment: From Error Visibility …")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from autoquant.errors import MetricUnavailable
from autoquant.metrics.images import Images
from autoquant.metrics.metric import Metric, MetricSettings

# The 11x11 Gaussian window (sigma 1.5) of the paper leaves no pixel of a smaller image.
_LEAST_PIXELS = 11


class Ssim:
    """Mean SSIM over an image's windows and channels; 1 is identical."""

    name = "ssim"
    identity = "ssim: Gaussian window 11, sigma 1.5, mean over RGB"
    lower_is_better = False

    def per_image(
        self, reference: Images, candidate: Images, prompts: Sequence[str]
    ) -> list[float]:
        """SSIM of each image, one at a time: each takes many times its own size."""
        return [
            float(
                structural_similarity_index_measure(_tensor(ours), _tensor(theirs), data_range=1.0)
            )
            for theirs, ours in zip(reference, candidate, strict=True)
        ]


def _tensor(image: Images) -> torch.Tensor:
    # Variances of flat windows are differences of nearly equal numbers: in float32 the rounding
    # alone costs identical images 4e-5.
    return torch.from_numpy(image).double().permute(2, 0, 1)[None]


def make(settings: MetricSettings) -> Sequence[Metric]:
    """SSIM needs images of at least 11 pixels a side.

    Raises:
        MetricUnavailable: The images are smaller.
    """
    if min(settings.image_size) < _LEAST_PIXELS:
        height, width = settings.image_size
        raise MetricUnavailable(
            f"SSIM needs at least {_LEAST_PIXELS} pixels a side, images are {height}x{width}."
        )
    return [Ssim()]
