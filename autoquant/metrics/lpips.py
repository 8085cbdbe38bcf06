"""LPIPS (Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features …"), AlexNet."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from autoquant.errors import MetricUnavailable
from autoquant.metrics.images import Images
from autoquant.metrics.lpips_weights import alexnet_file, weights_only_loading
from autoquant.metrics.metric import Metric, MetricSettings

if TYPE_CHECKING:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

# AlexNet's strides leave one feature of 32 pixels and, soon below, none.
_LEAST_PIXELS = 32


class Lpips:
    """Distance between two images' AlexNet features, weighted to agree with people; 0 is identical.

    Values depend on the resolution and are comparable only at one size.
    """

    name = "lpips"
    lower_is_better = True

    def __init__(self, network: LearnedPerceptualImagePatchSimilarity, identity: str) -> None:
        self._network = network
        self.identity = identity

    def per_image(
        self, reference: Images, candidate: Images, prompts: Sequence[str]
    ) -> list[float]:
        """LPIPS of each image, one at a time to bound the memory of the features."""
        self._network.reset()
        with torch.inference_mode():
            for theirs, ours in zip(reference, candidate, strict=True):
                self._network.update(_tensor(ours), _tensor(theirs))
            # One image comes back as a scalar.
            values: list[float] = self._network.compute().reshape(-1).tolist()
        self._network.reset()
        return values


def make(settings: MetricSettings) -> Sequence[Metric]:
    """LPIPS needs AlexNet's weights and images of at least 32 pixels a side.

    Raises:
        MetricUnavailable: The images are smaller, or the weights cannot be had or trusted.
    """
    height, width = settings.image_size
    if min(height, width) < _LEAST_PIXELS:
        raise MetricUnavailable(
            f"LPIPS needs at least {_LEAST_PIXELS} pixels a side, images are {height}x{width}."
        )
    path = alexnet_file(settings.allow_download)
    # It takes half a second, for nothing where the weights are not here.
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    try:
        with weights_only_loading():
            network = LearnedPerceptualImagePatchSimilarity(
                net_type="alex", reduction="none", normalize=True
            )
    except (pickle.UnpicklingError, RuntimeError, TypeError) as error:
        raise MetricUnavailable(
            f"{path} does not hold AlexNet's weights as plain tensors and was not used: "
            f"{str(error).strip().partition(chr(10))[0]}"
        ) from error
    return [Lpips(network.eval(), f"lpips: {path.stem}, heads 0.1")]


def _tensor(image: Images) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None]
