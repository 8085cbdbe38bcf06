"""How to run each kind of component on the meta device as its pipeline does."""

from __future__ import annotations

from typing import Any

import torch

from autoquant.errors import UnsupportedPipeline
from autoquant.planner.footprint.activations import is_followed
from autoquant.planner.footprint.config_values import integer
from autoquant.planner.footprint.denoiser_calls import Call, denoising_call, meta_tensor
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
            (part, denoising_call(model, part, request)) for part in [denoiser_of(model)] if part
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
        return module.decode(meta_tensor(request, request.batch, channels, *frames, *size))  # type: ignore[operator]

    return call
