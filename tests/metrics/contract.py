"""What every metric keeps, whatever it measures."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from autoquant.metrics.fidelity import losses_of, score
from autoquant.metrics.images import Images
from autoquant.metrics.metric import Metric
from tests.metrics.conftest import PROMPTS

STRENGTHS = (0.0, 0.01, 0.04, 0.16)


def check_loss(
    metric: Metric, reference: Images, noisy: Callable[[float], Images], abs: float = 1e-9
) -> None:
    """Identical images lose nothing, and more noise loses more, image by image."""
    per_image = [
        losses_of(metric.name, score(metric, reference, noisy(strength), PROMPTS))
        for strength in STRENGTHS
    ]
    assert per_image[0] == pytest.approx([0.0] * len(PROMPTS), abs=abs)
    for less, more in itertools.pairwise(per_image):
        assert all(a < b for a, b in zip(less, more, strict=True))
