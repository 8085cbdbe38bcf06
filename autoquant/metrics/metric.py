"""What a metric is, and what it is made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from autoquant.metrics.images import Images

DEFAULT_CLIP_MODEL = "ViT-B-32:laion2b_s34b_b79k"


class Metric(Protocol):
    """Compares images of the same prompts and seeds, one value per image."""

    @property
    def name(self) -> str:
        """Name in plans and on the command line."""

    @property
    def identity(self) -> str:
        """What makes two values comparable: the weights or constants behind them."""

    @property
    def lower_is_better(self) -> bool:
        """Whether 0 is best; else larger is better."""

    def per_image(
        self, reference: Images, candidate: Images, prompts: Sequence[str]
    ) -> list[float]:
        """One finite value per image; both arrays have one shape, float32 within [0, 1]."""


@dataclass(frozen=True)
class MetricSettings:
    """What a metric is made for.

    Attributes:
        image_size: Height and width in pixels.
        allow_download: Whether weights that are not on this machine may be fetched.
        clip_model: ``MODEL:TAG`` as open_clip names them, or ``local-dir:PATH``.
    """

    image_size: tuple[int, int]
    allow_download: bool = False
    clip_model: str = DEFAULT_CLIP_MODEL


MetricFactory = Callable[[MetricSettings], Sequence[Metric]]
"""Makes the metrics of one family; raises MetricUnavailable with the reason and the way out."""
