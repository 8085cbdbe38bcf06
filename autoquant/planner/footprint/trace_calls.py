"""How to run each kind of component on the meta device as its pipeline does."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch

from autoquant.errors import UnsupportedPipeline
from autoquant.planner.footprint.activations import is_followed
from autoquant.planner.footprint.config_values import integer
from autoquant.planner.footprint.family import (
    decoder_of,
    denoiser_of,
    encoders_of,
    latent_scale,
)
from autoquant.planner.footprint.prediction import DECODING, DENOISING, ENCODING
from autoquant.planner.footprint.request import Request
from autoquant.planner.footprint.shapes import ComponentShapes, ModelShapes
from autoquant.planner.footprint.tape import Tape
from autoquant.planner.footprint.trace import build, record

Call = Callable[[torch.nn.Module], Any]
_CLIP_TOKENS = 77


def traced_tapes(model: ModelShapes, request: Request) -> dict[str, list[Tape]]:
    """Run every component once on the meta device; what each allocates, by stage.

    Decoding with AutoencoderKL is left to decoder.py, which gives the same bytes in the same order
    and knows the scratch memory of convolutions besides.

    Raises:
        UnsupportedPipeline: A component has no known call, or the installed libraries refuse it.
    """
    parts: dict[str, list[tuple[ComponentShapes, Call]]] = {
        ENCODING: [(part, _encode(part, request)) for part in encoders_of(model).values()],
        DENOISING: [
            (part, _denoise(model, part, request)) for part in [denoiser_of(model)] if part
        ],
        DECODING: [
            (part, decoding_call(model, part, request))
            for part in [decoder_of(model)]
            if part and not is_followed(part)
        ],
    }
    return {
        stage: [_traced(component, call, request) for component, call in calls]
        for stage, calls in parts.items()
        if calls
    }


def _traced(component: ComponentShapes, call: Call, request: Request) -> Tape:
    from huggingface_hub.errors import StrictDataclassError

    try:
        return record(build(component, request.compute_dtype), call)
    except (
        TypeError,
        ValueError,
        RuntimeError,
        AttributeError,
        KeyError,
        AssertionError,
        IndexError,
        ZeroDivisionError,
        StrictDataclassError,
    ) as error:
        # Models report a config that they do not take as any of these.
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UnsupportedPipeline(
            f"{component.class_name} cannot be traced: {first_line}. Leave --trace out."
        ) from error


def _encode(component: ComponentShapes, request: Request) -> Call:
    is_clip = component.class_name.startswith("CLIPText")
    tokens = _CLIP_TOKENS if is_clip else request.text_tokens
    keeps_all = not component.class_name.startswith(("T5", "UMT5", "MT5"))

    def call(module: torch.nn.Module) -> Any:
        ids = torch.zeros(request.batch, tokens, dtype=torch.long, device="meta")
        return module(input_ids=ids, output_hidden_states=keeps_all)

    return call


def decoding_call(model: ModelShapes, vae: ComponentShapes, request: Request) -> Call:
    """Decode a batch of latents."""
    scale = latent_scale(model)
    size = (request.height // scale, request.width // scale)
    channels = integer(vae.config, "latent_channels", integer(vae.config, "z_dim", 4))
    frames = (1,) if "z_dim" in vae.config else ()

    def call(module: torch.nn.Module) -> Any:
        return module.decode(_empty(request, request.batch, channels, *frames, *size))  # type: ignore[operator]

    return call


def _denoise(model: ModelShapes, denoiser: ComponentShapes, request: Request) -> Call:
    scale = latent_scale(model)
    h, w = request.height // scale, request.width // scale
    for pattern, make in _DENOISERS.items():
        if re.fullmatch(pattern, denoiser.class_name):
            return make(denoiser, request, h, w)
    raise UnsupportedPipeline(
        f"No call is known for {denoiser.class_name}, so it cannot be traced. Leave --trace out."
    )


def _flux(part: ComponentShapes, request: Request, h: int, w: int) -> Call:
    config, batch, pixels = part.config, request.denoised, (h // 2) * (w // 2)

    def call(module: torch.nn.Module) -> Any:
        text = integer(config, "joint_attention_dim", 4096)
        return module(
            hidden_states=_empty(request, batch, pixels, integer(config, "in_channels", 64)),
            encoder_hidden_states=_empty(request, batch, request.joint_tokens, text),
            pooled_projections=_empty(
                request, batch, integer(config, "pooled_projection_dim", 768)
            ),
            timestep=_empty(request, batch),
            guidance=torch.empty(batch, device="meta") if config.get("guidance_embeds") else None,
            img_ids=_empty(request, pixels, 3),
            txt_ids=_empty(request, request.joint_tokens, 3),
            return_dict=False,
        )

    return call


def _sd3(part: ComponentShapes, request: Request, h: int, w: int) -> Call:
    config, batch = part.config, request.denoised

    def call(module: torch.nn.Module) -> Any:
        text = integer(config, "joint_attention_dim", 4096)
        return module(
            hidden_states=_empty(request, batch, integer(config, "in_channels", 16), h, w),
            encoder_hidden_states=_empty(request, batch, request.joint_tokens, text),
            pooled_projections=_empty(
                request, batch, integer(config, "pooled_projection_dim", 2048)
            ),
            timestep=_empty(request, batch),
            return_dict=False,
        )

    return call


def _pixart(part: ComponentShapes, request: Request, h: int, w: int) -> Call:
    config, batch, tokens = part.config, request.denoised, request.joint_tokens

    def call(module: torch.nn.Module) -> Any:
        text = integer(config, "caption_channels", 4096)
        return module(
            hidden_states=_empty(request, batch, integer(config, "in_channels", 4), h, w),
            encoder_hidden_states=_empty(request, batch, tokens, text),
            timestep=_empty(request, batch),
            encoder_attention_mask=_empty(request, batch, tokens),
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
            "text_embeds": _empty(request, batch, max(embedded - times, 1)),
            "time_ids": _empty(request, batch, 6),
        }
        text = integer(config, "cross_attention_dim", 768)
        return module(
            _empty(request, batch, integer(config, "in_channels", 4), h, w),
            torch.empty(batch, device="meta"),
            _empty(request, batch, request.joint_tokens, text),
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
            hidden_states=_empty(request, batch, pixels, integer(config, "in_channels", 64)),
            encoder_hidden_states=_empty(request, batch, request.joint_tokens, text),
            encoder_hidden_states_mask=None,
            timestep=_empty(request, batch),
            img_shapes=[[(1, h // 2, w // 2)]] * batch,
            return_dict=False,
        )

    return call


_DENOISERS: dict[str, Callable[[ComponentShapes, Request, int, int], Call]] = {
    r"FluxTransformer2DModel": _flux,
    r"SD3Transformer2DModel": _sd3,
    r"PixArtTransformer2DModel": _pixart,
    r"UNet2DConditionModel": _unet,
    r"QwenImageTransformer2DModel": _qwen,
}


def _empty(request: Request, *shape: int) -> torch.Tensor:
    return torch.empty(*shape, dtype=getattr(torch, request.compute_dtype), device="meta")
