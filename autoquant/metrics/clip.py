"""CLIP (Radford et al. 2021; Hessel et al. 2021, "CLIPScore"): does an image still say the same?"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError

from autoquant.errors import MetricUnavailable
from autoquant.metrics.clip_weights import LOCAL, ClipSource, find_clip
from autoquant.metrics.images import Images, to_bytes
from autoquant.metrics.metric import Metric, MetricSettings


class ClipEncoder:
    """Unit vectors of images and prompts; the reference, seen again and again, is encoded once."""

    def __init__(self, source: ClipSource) -> None:
        self._model, self._prepare = _create(source)
        self._tokenize: Callable[[list[str]], torch.Tensor] = open_clip.get_tokenizer(
            source.model_name
        )
        self._known: dict[bytes, torch.Tensor] = {}

    def images(self, images: Images) -> torch.Tensor:
        """Encode images of shape (N, H, W, 3) to unit vectors of shape (N, width)."""
        return torch.stack([self._image(pixels) for pixels in to_bytes(images)])

    def prompts(self, prompts: Sequence[str]) -> torch.Tensor:
        """Encode N prompts to unit vectors; what exceeds the model's context is cut off."""
        with torch.inference_mode():
            features = self._model.encode_text(self._tokenize(list(prompts)))
        return torch.nn.functional.normalize(features, dim=-1)

    def _image(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        key = hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
        if key not in self._known:
            with torch.inference_mode():
                features = self._model.encode_image(self._prepare(Image.fromarray(pixels))[None])
            self._known[key] = torch.nn.functional.normalize(features, dim=-1)[0]
        return self._known[key]


class _ClipMetric:
    lower_is_better = False

    def __init__(self, encoder: ClipEncoder, identity: str) -> None:
        self._encoder = encoder
        self.identity = identity

    def _text_points(self, images: Images, prompts: Sequence[str]) -> torch.Tensor:
        # 100 times the cosine, as CLIP scores are printed, but not cut off at 0.
        return 100 * (self._encoder.images(images) * self._encoder.prompts(prompts)).sum(dim=-1)


class ClipText(_ClipMetric):
    """How well the candidate's image fits its prompt: 100 times the cosine."""

    name = "clip_text"

    def per_image(
        self, reference: Images, candidate: Images, prompts: Sequence[str]
    ) -> list[float]:
        """Points of each candidate image; the reference does not matter."""
        return _floats(self._text_points(candidate, prompts))


class ClipDelta(_ClipMetric):
    """How much better the candidate's image fits its prompt than the reference's does."""

    name = "clip_delta"

    def per_image(
        self, reference: Images, candidate: Images, prompts: Sequence[str]
    ) -> list[float]:
        """Points gained by each image; negative is damage."""
        ours, theirs = (self._text_points(images, prompts) for images in (candidate, reference))
        return _floats(ours - theirs)


class ClipImage(_ClipMetric):
    """How much the two images mean the same: the cosine of their vectors."""

    name = "clip_image"

    def per_image(
        self, reference: Images, candidate: Images, prompts: Sequence[str]
    ) -> list[float]:
        """Cosine of each pair, at most 1."""
        cosines = (self._encoder.images(reference) * self._encoder.images(candidate)).sum(dim=-1)
        return _floats(cosines.clamp(max=1))


def make(settings: MetricSettings) -> Sequence[Metric]:
    """Three metrics that share one CLIP model.

    Raises:
        MetricUnavailable: The model is unknown, or its weights cannot be had or loaded.
    """
    source = find_clip(settings.clip_model, settings.allow_download)
    encoder, identity = ClipEncoder(source), f"clip: {source.identity}"
    return [metric(encoder, identity) for metric in (ClipText, ClipDelta, ClipImage)]


def _create(source: ClipSource) -> tuple[Any, Callable[[Image.Image], torch.Tensor]]:
    try:
        model, prepare = open_clip.create_model_from_pretrained(
            source.model_name,
            # A folder has its own, and open_clip warns of a second.
            pretrained=None if source.model_name.startswith(LOCAL) else str(source.weights),
            weights_only=True,
            **source.overrides,
        )
    except (RuntimeError, ValueError, OSError, pickle.UnpicklingError, SafetensorError) as error:
        raise MetricUnavailable(f"open_clip cannot load {source.weights}: {error}") from error
    return model.eval(), prepare


def _floats(values: torch.Tensor) -> list[float]:
    return [float(value) for value in values]
