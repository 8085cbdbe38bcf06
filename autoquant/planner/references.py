"""Images of the unquantized pipeline, for each workload that something is compared on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from torch.nn.attention import SDPBackend, sdpa_kernel

from autoquant.metrics.fidelity import Metric, score, summarized
from autoquant.metrics.images import check_images
from autoquant.metrics.score import MetricScore, losses_of
from autoquant.planner.drawing import Images, draw
from autoquant.planner.memory_faults import is_out_of_memory
from autoquant.planner.workload import Workload

# torch takes the first of each that can compute the shapes. Where the memory-efficient one is the
# usual kernel (cards before Ampere), only the math kernel differs; a CPU has no other than that.
_OTHER_KERNELS = (
    (SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH),
    (SDPBackend.MATH,),
)

_logger = logging.getLogger(__name__)


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

    def score(
        self,
        metrics: Mapping[str, Metric],
        images: Images,
        known: Mapping[str, Sequence[float]] = MappingProxyType({}),
    ) -> dict[str, MetricScore]:
        """Compare a candidate's images of the same workload, or the first of them, by each metric.

        Args:
            metrics: What to compare with.
            images: The candidate's images.
            known: Values of each image, by the name of the metric that gave them.
        """
        return {
            name: summarized(known[name], lower_is_better=metric.lower_is_better)
            if name in known
            else self.score_from(0, metric, images)
            for name, metric in metrics.items()
        }

    def check(self, images: Images) -> None:
        """Refuse images, all or the first ones, that no working pipeline draws.

        Raises:
            DegenerateImage: One is not finite, constant or black.
        """
        drawn = len(images)
        check_images(images, self.prompts[:drawn], self.images[:drawn])

    def score_from(self, first: int, metric: Metric, images: Images) -> MetricScore:
        """Compare a candidate's images from the one at ``first`` on."""
        part = slice(first, len(images))
        return score(metric, self.images[part], images[part], self.prompts[part])


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
    again = _drawn_otherwise(pipeline, workload, drawn)
    return Reference(workload, drawn, noise=reference.score(metrics, again))


def _drawn_otherwise(pipeline: Any, workload: Workload, images: Images) -> Images:
    """Draw ``images`` again with another attention kernel, the first one that makes a difference.

    The math kernel keeps the whole attention matrix in float32, gigabytes at 1024 pixels. If that
    is not there, the images themselves are returned: a noise floor of zero.
    """
    again = images
    for kernels in _OTHER_KERNELS:
        try:
            with sdpa_kernel(list(kernels)):
                again = draw_all(pipeline, workload)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            _logger.warning("no memory to draw the noise floor with %s", kernels[-1].name)
        if (again != images).any():
            break
    return again


def draw_all(pipeline: Any, workload: Workload) -> Images:
    """Every image of a workload, by no clock."""
    return np.concatenate([draw(pipeline, workload, batch) for batch in workload.batches()])
