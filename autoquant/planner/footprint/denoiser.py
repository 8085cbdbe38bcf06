"""What one step of each kind of denoiser keeps alive, counted in traces on the meta device."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoquant.planner.footprint.alive import Alive
from autoquant.planner.footprint.config_values import integer, integers
from autoquant.planner.footprint.family import latent_scale
from autoquant.planner.footprint.request import Request
from autoquant.planner.footprint.shapes import ComponentShapes, ModelShapes


@dataclass(frozen=True)
class _Denoiser:
    """Tensors of (tokens x width) alive for each image token and each text token.

    Attributes:
        models: Matches the whole class name.
        wide: The key of the feed-forward width in the config, where models of one class differ in
            it: two such tensors, and ``beside`` of the model's width, are alive there.
    """

    models: str
    per_image_token: float
    per_text_token: float
    wide: str = ""
    beside: float = 0.0

    def image_count(self, config: Mapping[str, Any]) -> float:
        """The larger of attention's and the feed-forward's."""
        ratio = integer(config, self.wide, 0) / width(config) if self.wide else 0.0
        return max(self.per_image_token, self.beside + 2 * ratio)


_DENOISERS = (
    _Denoiser(r"Flux2Transformer2DModel", 21.2, 24.7),
    _Denoiser(r"ChromaTransformer2DModel", 16.2, 18.6),
    _Denoiser(r"(Flux|Bria|LongCat|Ovis)\w*Transformer2DModel", 17.2, 17.2),
    _Denoiser(r"SD3Transformer2DModel", 13.04, 5.7),
    _Denoiser(r"PixArtTransformer2DModel", 12.02, 4.6),
    _Denoiser(r"QwenImage\w*Transformer2DModel", 15.2, 7.5),
    _Denoiser(r"AuraFlowTransformer2DModel", 13.0, 14.1),
    _Denoiser(r"CogView4Transformer2DModel", 13.1, 7.7),
    _Denoiser(r"SanaTransformer2DModel", 14.0, 2.1),
    _Denoiser(r"Lumina2Transformer2DModel", 26.4, 28.3),
    _Denoiser(r"ZImageTransformer2DModel", 15.8, 16.6),
    _Denoiser(r"WanTransformer3DModel", 11.07, 3.8, wide="ffn_dim", beside=4.2),
    _Denoiser(r"HunyuanDiT2DModel", 16.5, 0.0),
)
# The largest of the known ones, for models that nobody has traced.
_UNKNOWN_DENOISER = _Denoiser(r".*", 26.4, 28.3)
# A UNet's counts are of (latent pixels x first level's channels); attention in the first level, as
# in Stable Diffusion 1.5, takes more.
_UNET_COUNT, _UNET_COUNT_WITH_ATTENTION = 15.8, 26.06


def denoiser_alive(model: ModelShapes, denoiser: ComponentShapes, request: Request) -> list[Alive]:
    """Tensors alive in one step."""
    config, scale = denoiser.config, latent_scale(model)
    pixels = (request.height // scale) * (request.width // scale)
    if "UNet" in denoiser.class_name:
        channels = integers(config, "block_out_channels", (320,))[0]
        blocks = config.get("down_block_types")
        attends = isinstance(blocks, list | tuple) and "CrossAttn" in str(next(iter(blocks), ""))
        count = _UNET_COUNT_WITH_ATTENTION if attends else _UNET_COUNT
        return [Alive(count, request.denoised * pixels * channels)]
    known = (kind for kind in _DENOISERS if re.fullmatch(kind.models, denoiser.class_name))
    kind = next(known, _UNKNOWN_DENOISER)
    image_tokens = request.denoised * pixels // patch(config) ** 2
    text_tokens = request.denoised * request.joint_tokens
    return [
        Alive(kind.image_count(config), image_tokens * width(config)),
        Alive(kind.per_text_token, text_tokens * width(config)),
    ]


def is_counted(denoiser: ComponentShapes) -> bool:
    """Whether this class has been traced, so that its closed form is its own."""
    return "UNet" in denoiser.class_name or any(
        re.fullmatch(kind.models, denoiser.class_name) for kind in _DENOISERS
    )


def width(config: Mapping[str, Any]) -> int:
    """Numbers of one token inside the denoiser."""
    for key in ("hidden_size", "inner_dim", "dim"):
        if integer(config, key, 0):
            return integer(config, key, 0)
    head = integer(config, "attention_head_dim", 64)
    return head * integer(config, "num_attention_heads", 24)


def patch(config: Mapping[str, Any]) -> int:
    """Latent pixels along one side of a token; packed latents have patches of 2 in the channels."""
    sizes = [*integers(config, "patch_size", ()), *integers(config, "all_patch_size", ())]
    size = sizes[-1] if sizes else integer(config, "patch_size", 1)
    packed = integer(config, "in_channels", 4) >= 64 and size == 1
    return 2 if packed else size
