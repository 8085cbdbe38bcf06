"""Images of the unquantized pipeline, for each workload that something is compared on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.nn.attention import SDPBackend, sdpa_kernel

from autoquant.metrics.fidelity import Metric, score
from autoquant.metrics.images import check_images
from autoquant.metrics.score import MetricScore, losses_of
from autoquant.planner.drawing import Images, draw
from autoquant.planner.workload import Workload


@dataclass(frozen=True)
class Reference:
    """What candidates are compared with on one workload.

    Attributes:
        images: Float32 of shape (N, H, W, 3) in [0, 1], one for each sample of the workload.
        noise: The same pipeline drawn with another attention kernel, by each metric.
    """

    workload: Workload
    images: Images
    noise: Mapping[str, MetricScore]

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompt of each image."""
        return tuple(sample.prompt for sample in self.workload.samples)

    def noise_floor(self, metric: str) -> float:
        """Mean loss of the reference against itself, in units of ``metric``."""
        losses = losses_of(metric, self.noise[metric])
        return sum(losses) / len(losses)

    def score(self, metrics: Mapping[str, Metric], images: Images) -> dict[str, MetricScore]:
        """Compare a candidate's images of the same workload, by each metric."""
        return {
            name: score(metric, self.images, images, self.prompts)
            for name, metric in metrics.items()
        }


def make_reference(
    pipeline: Any,
    workload: Workload,
    metrics: Mapping[str, Metric],
    images: Images | None = None,
) -> Reference:
    """Draw ``workload`` with the unquantized ``pipeline``, and once more for the noise floor.

    Args:
        images: The images, if they have been drawn already.

    Raises:
        DegenerateImage: The unquantized pipeline itself draws an image that is not finite,
            constant or black.
    """
    drawn = draw_all(pipeline, workload) if images is None else images
    reference = Reference(workload, drawn, noise={})
    check_images(drawn, reference.prompts)
    with sdpa_kernel(SDPBackend.MATH):
        again = draw_all(pipeline, workload)
    return Reference(workload, drawn, noise=reference.score(metrics, again))


def draw_all(pipeline: Any, workload: Workload) -> Images:
    """Every image of a workload, by no clock."""
    return np.concatenate([draw(pipeline, workload, batch) for batch in workload.batches()])
