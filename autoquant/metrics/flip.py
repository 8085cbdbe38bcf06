"""FLIP (Andersson et al. 2020, "FLIP: A Difference Evaluator for Alternating Images")."""

from __future__ import annotations

from collections.abc import Sequence

import flip_evaluator
import numpy as np

from autoquant.metrics.images import Images
from autoquant.metrics.metric import Metric, MetricSettings

# The authors' default: a 0.7 m wide 3840 pixel display seen from 0.7 m.
_PIXELS_PER_DEGREE = 67.02064514160156


class Flip:
    """Mean LDR-FLIP: the share of difference seen when one image is flipped for the other.

    It models contrast sensitivity and colour difference, and needs no weights.
    """

    name = "flip"
    identity = f"flip: LDR mean, {_PIXELS_PER_DEGREE:.0f} pixels per degree"
    lower_is_better = True

    def per_image(
        self, reference: Images, candidate: Images, prompts: Sequence[str]
    ) -> list[float]:
        """Mean FLIP of each image, 0 to 1."""
        return [
            _mean_error(theirs, ours) for theirs, ours in zip(reference, candidate, strict=True)
        ]


def _mean_error(reference: Images, candidate: Images) -> float:
    _, mean, _ = flip_evaluator.evaluate(
        np.ascontiguousarray(reference),
        np.ascontiguousarray(candidate),
        "LDR",
        inputsRGB=True,
        applyMagma=False,
        parameters={"ppd": _PIXELS_PER_DEGREE},
    )
    return float(mean)


def make(settings: MetricSettings) -> Sequence[Metric]:
    """FLIP needs nothing."""
    return [Flip()]
