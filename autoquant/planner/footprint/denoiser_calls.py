"""How to run one step of each denoiser on the meta device as its pipeline does."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch

from autoquant.errors import UnsupportedPipeline
from autoquant.planner.footprint.config_values import integer
from autoquant.planner.footprint.family import latent_scale
from autoquant.planner.footprint.request import Request
from autoquant.planner.footprint.shapes import ComponentShapes, ModelShapes

Call = Callable[[torch.nn.Module], Any]


def denoising_call(model: ModelShapes, denoiser: ComponentShapes, request: Request) -> Call:
    """One step of ``denoiser``.

    Raises:
        UnsupportedPipeline: No call is known for its class.
    """
    scale = latent_scale(model)
    h, w = request.height // scale, request.width // scale
    for pattern, make in _DENOISERS.items():
        if re.fullmatch(pattern, denoiser.class_name):
            return make(denoiser, request, h, w)
    raise UnsupportedPipeline(
        f"No call is known for {denoiser.class_name}, so it cannot be traced. Leave --trace out."
    )


def meta_tensor(request: Request, *shape: int) -> torch.Tensor:
    """A tensor of the compute dtype that takes no memory."""
    return torch.empty(*shape, dtype=getattr(torch, request.compute_dtype), device="meta")


def _flux(part: ComponentShapes, request: Request, h: int, w: int) -> Call:
    config, batch, pixels = part.config, request.denoised, (h // 2) * (w // 2)

    def call(module: torch.nn.Module) -> Any:
        text = integer(config, "joint_attention_dim", 4096)
        return module(
            hidden_states=meta_tensor(request, batch, pixels, integer(config, "in_channels", 64)),
            encoder_hidden_states=meta_tensor(request, batch, request.joint_tokens, text),
            pooled_projections=meta_tensor(
                request, batch, integer(config, "pooled_projection_dim", 768)
            ),
            timestep=meta_tensor(request, batch),
            guidance=torch.empty(batch, device="meta") if config.get("guidance_embeds") else None,
            img_ids=meta_tensor(request, pixels, 3),
            txt_ids=meta_tensor(request, request.joint_tokens, 3),
            return_dict=False,
        )

    return call


def _sd3(part: ComponentShapes, request: Request, h: int, w: int) -> Call:
    config, batch = part.config, request.denoised

    def call(module: torch.nn.Module) -> Any:
        text = integer(config, "joint_attention_dim", 4096)
        return module(
            hidden_states=meta_tensor(request, batch, integer(config, "in_channels", 16), h, w),
            encoder_hidden_states=meta_tensor(request, batch, request.joint_tokens, text),
            pooled_projections=meta_tensor(
                request, batch, integer(config, "pooled_projection_dim", 2048)
            ),
            timestep=meta_tensor(request, batch),
            return_dict=False,
        )

    return call


def _pixart(part: ComponentShapes, request: Request, h: int, w: int) -> Call:
    config, batch, tokens = part.config, request.denoised, request.joint_tokens

    def call(module: torch.nn.Module) -> Any:
        text = integer(config, "caption_channels", 4096)
        return module(
            hidden_states=meta_tensor(request, batch, integer(config, "in_channels", 4), h, w),
            encoder_hidden_states=meta_tensor(request, batch, tokens, text),
            timestep=meta_tensor(request, batch),
            encoder_attention_mask=meta_tensor(request, batch, tokens),
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )

    return call


def _unet(part: ComponentShapes, request: Request, h: int, w: int) -> Call:
    config, batch = part.config, request.denoised

    def call(module: torch.nn.Module) -> Any:
        embedded = integer(config, "projection_class_embeddings_input_dim", 0)
        times = 6 * integer(config, "addition_time_embed_dim", 256)
        added = {
            "text_embeds": meta_tensor(request, batch, max(embedded - times, 1)),
            "time_ids": meta_tensor(request, batch, 6),
        }
        text = integer(config, "cross_attention_dim", 768)
        return module(
            meta_tensor(request, batch, integer(config, "in_channels", 4), h, w),
            torch.empty(batch, device="meta"),
            meta_tensor(request, batch, request.joint_tokens, text),
            added_cond_kwargs=added if config.get("addition_embed_type") else None,
            return_dict=False,
        )

    return call


def _qwen(part: ComponentShapes, request: Request, h: int, w: int) -> Call:
    config, batch = part.config, request.denoised

    def call(module: torch.nn.Module) -> Any:
        pixels = (h // 2) * (w // 2)
        text = integer(config, "joint_attention_dim", 3584)
        return module(
            hidden_states=meta_tensor(request, batch, pixels, integer(config, "in_channels", 64)),
            encoder_hidden_states=meta_tensor(request, batch, request.joint_tokens, text),
            encoder_hidden_states_mask=None,
            timestep=meta_tensor(request, batch),
            img_shapes=[[(1, h // 2, w // 2)]] * batch,
            return_dict=False,
        )

    return call


def _packed(part: ComponentShapes, request: Request, h: int, w: int) -> Call:
    """Chroma and FLUX.2: packed latents with positions for image and text."""
    config, batch, pixels = part.config, request.denoised, (h // 2) * (w // 2)
    axes = 4 if part.class_name.startswith("Flux2") else 3

    def call(module: torch.nn.Module) -> Any:
        text = integer(config, "joint_attention_dim", 4096)
        guided = {"guidance": meta_tensor(request, batch)} if config.get("guidance_embeds") else {}
        return module(
            hidden_states=meta_tensor(request, batch, pixels, integer(config, "in_channels", 64)),
            encoder_hidden_states=meta_tensor(request, batch, request.joint_tokens, text),
            timestep=meta_tensor(request, batch),
            img_ids=meta_tensor(request, pixels, axes),
            txt_ids=meta_tensor(request, request.joint_tokens, axes),
            return_dict=False,
            **guided,
        )

    return call


def _plain(width_key: str, **more: Callable[[Request], torch.Tensor]) -> _Maker:
    """Models that take latents, what the encoder said (``width_key`` wide) and a timestep."""

    def make(part: ComponentShapes, request: Request, h: int, w: int) -> Call:
        config, batch = part.config, request.denoised
        frames = (1,) if "Transformer3D" in part.class_name else ()

        def call(module: torch.nn.Module) -> Any:
            channels, text = integer(config, "in_channels", 16), integer(config, width_key, 4096)
            return module(
                hidden_states=meta_tensor(request, batch, channels, *frames, h, w),
                encoder_hidden_states=meta_tensor(request, batch, request.joint_tokens, text),
                timestep=meta_tensor(request, batch),
                return_dict=False,
                **{name: tensor(request) for name, tensor in more.items()},
            )

        return call

    return make


def _z_image(part: ComponentShapes, request: Request, h: int, w: int) -> Call:
    config = part.config

    def call(module: torch.nn.Module) -> Any:
        latents = [meta_tensor(request, integer(config, "in_channels", 16), 1, h, w)]
        text = [meta_tensor(request, request.joint_tokens, integer(config, "cap_feat_dim", 2560))]
        n = request.denoised
        return module(n * latents, meta_tensor(request, n), n * text, return_dict=False)

    return call


def _said(request: Request) -> torch.Tensor:
    """Which tokens of the prompt are there: all."""
    return torch.ones(request.denoised, request.joint_tokens, dtype=torch.bool)


def _pair(request: Request) -> torch.Tensor:
    return meta_tensor(request, request.denoised, 2)


_Maker = Callable[[ComponentShapes, Request, int, int], Call]
_DENOISERS: dict[str, _Maker] = {
    r"FluxTransformer2DModel": _flux,
    r"(Chroma|Flux2)Transformer2DModel": _packed,
    r"SD3Transformer2DModel": _sd3,
    r"PixArtTransformer2DModel": _pixart,
    r"UNet2DConditionModel": _unet,
    r"QwenImageTransformer2DModel": _qwen,
    r"ZImageTransformer2DModel": _z_image,
    r"AuraFlowTransformer2DModel": _plain("joint_attention_dim"),
    r"SanaTransformer2DModel": _plain("caption_channels"),
    r"WanTransformer3DModel": _plain("text_dim"),
    r"Lumina2Transformer2DModel": _plain("cap_feat_dim", encoder_attention_mask=_said),
    r"CogView4Transformer2DModel": _plain(
        "text_embed_dim", original_size=_pair, target_size=_pair, crop_coords=_pair
    ),
}
