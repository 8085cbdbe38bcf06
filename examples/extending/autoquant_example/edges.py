"""A metric: how far the edges of two images are from each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from autoquant.metrics.images import Images
from autoquant.metrics.metric import Metric, MetricSettings


class Edges:
    """Mean absolute difference of the Sobel gradients; 0 is identical."""

    name = "edges"
    identity = "edges: Sobel, mean over pixels and channels"
    lower_is_better = True

    def per_image(
        self, reference: Images, candidate: Images, prompts: Sequence[str]
    ) -> list[float]:
        """One value per image."""
        return [
            float(np.abs(_gradient(theirs) - _gradient(ours)).mean())
            for theirs, ours in zip(reference, candidate, strict=True)
        ]


def _gradient(image: Images) -> Images:
    """Length of the gradient of each pixel, same shape (H, W, 3)."""
    return np.hypot(ndimage.sobel(image, axis=0), ndimage.sobel(image, axis=1))


def make(settings: MetricSettings) -> Sequence[Metric]:
    """The metrics of this family; one that needs weights raises MetricUnavailable here."""
    return [Edges()]
