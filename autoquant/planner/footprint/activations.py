"""What each stage of a pipeline call allocates beside the weights, from shapes alone.

Decoding with ``AutoencoderKL`` is followed step by step (decoder.py). The other stages are closed
forms: so many tensors of tokens times width are alive at the worst moment. The counts follow from
the models' code, and tests hold them against traces on the meta device.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from autoquant.planner.footprint.alive import Alive, held_at_once
from autoquant.planner.footprint.config_values import MOST_LAYERS, integer, integers
from autoquant.planner.footprint.decoder import decode
from autoquant.planner.footprint.denoiser import denoiser_alive
from autoquant.planner.footprint.family import (
    decoder_of,
    denoiser_of,
    encoders_of,
    family_of,
)
from autoquant.planner.footprint.request import Request
from autoquant.planner.footprint.shapes import ComponentShapes, ModelShapes
from autoquant.planner.footprint.tape import Tape

_CLIP_TOKENS = 77


def encoder_tape(component: ComponentShapes, request: Request) -> Tape:
    """Reading one batch of prompts with one text encoder."""
    return held_at_once(_encoder_alive(component, request), request.itemsize)


def denoiser_tape(model: ModelShapes, request: Request) -> Tape:
    """One step of the denoiser."""
    denoiser = denoiser_of(model)
    if denoiser is None:
        return Tape(request.itemsize)
    return held_at_once(denoiser_alive(model, denoiser, request), request.itemsize)


def decoder_tape(model: ModelShapes, request: Request, *, workspaces: bool = True) -> Tape:
    """Decoding the latents of one batch."""
    vae = decoder_of(model)
    if vae is None:
        return Tape(request.itemsize)
    upcasts = (
        request.compute_dtype == "float16"
        and family_of(model.class_name).upcasts_vae
        and vae.config.get("force_upcast", True) is True
    )
    itemsize = 4 if upcasts else request.itemsize
    tape = Tape(itemsize, workspaces=workspaces)
    if is_followed(vae):
        decode(tape, vae.config, request.batch, request.height, request.width)
        return tape
    count, channels = _decoder_alive(vae)
    return held_at_once(
        [Alive(count, request.batch * request.height * request.width * channels)], itemsize
    )


def is_followed(vae: ComponentShapes) -> bool:
    """Whether decoding with this class is known step by step."""
    return re.fullmatch(r"AutoencoderKL(Flux2)?", vae.class_name) is not None


def encoder_tapes(model: ModelShapes, request: Request) -> dict[str, Tape]:
    """Each text encoder's tape, in the order they run."""
    return {
        name: encoder_tape(component, request) for name, component in encoders_of(model).items()
    }


def _encoder_alive(component: ComponentShapes, request: Request) -> list[Alive]:
    config, name = component.config, component.class_name
    if re.fullmatch(r"(U?M?T5)\w*", name):
        return _t5_alive(config, request)
    if name.startswith("CLIPText"):
        width = integer(config, "hidden_size", 768)
        # The activation of the wide layer of CLIP-L writes out more steps than gelu does; all
        # hidden states are kept where a pipeline reads the last but one.
        inner = 16 if config.get("hidden_act", "quick_gelu") == "quick_gelu" else 10
        kept = integer(config, "num_hidden_layers", 12, MOST_LAYERS) + 1
        return [Alive(inner + kept, request.batch * _CLIP_TOKENS * width)]
    return _language_model_alive(component, request)


def _t5_alive(config: Mapping[str, Any], request: Request) -> list[Alive]:
    """The wide layer, or the position bias and its contiguous copy (transformers t5)."""
    tokens = request.batch * request.text_tokens
    hidden = tokens * integer(config, "d_model", 512)
    wide = tokens * integer(config, "d_ff", 2048)
    bias = integer(config, "num_heads", 8) * request.text_tokens**2
    feeding = [Alive(1, bias), Alive(4, wide), Alive(4, hidden)]
    attending = [Alive(2, bias), Alive(8, hidden)]
    return max(feeding, attending, key=_total)


def _language_model_alive(component: ComponentShapes, request: Request) -> list[Alive]:
    """All hidden states, a block's own, and logits where the class has a head for them."""
    text = component.config.get("text_config")
    config = text if isinstance(text, dict) else component.config
    width = integer(config, "hidden_size", 4096)
    tokens = request.batch * request.text_tokens
    layers = integer(config, "num_hidden_layers", 32, MOST_LAYERS)
    alive = [Alive(layers + 1 + 8, tokens * width)]
    if re.search(r"For(ConditionalGeneration|CausalLM)$", component.class_name):
        alive.append(Alive(1, tokens * integer(config, "vocab_size", 152_064)))
    return alive


def _decoder_alive(vae: ComponentShapes) -> tuple[float, int]:
    if vae.class_name == "AutoencoderKLQwenImage" or vae.class_name == "AutoencoderKLWan":
        # diffusers autoencoder_kl_qwenimage.py: one frame through causal 3-D convolutions.
        return 18.02, integer(vae.config, "base_dim", 96)
    if vae.class_name == "AutoencoderDC":
        # diffusers autoencoder_dc.py; scratch as AutoencoderKL takes, three fifths more.
        return 6.51 * 1.6, integers(vae.config, "decoder_block_out_channels", (128,))[0]
    # As for AutoencoderKL: three tensors of the second level's channels, and scratch.
    return 9.5, integers(vae.config, "block_out_channels", (128,))[0]


def _total(alive: list[Alive]) -> int:
    return sum(tensors.total for tensors in alive)
