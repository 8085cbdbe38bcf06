"""What decoding latents with ``AutoencoderKL`` allocates, step by step.

It follows diffusers models/autoencoders/vae.py (Decoder), models/resnet.py (ResnetBlock2D) and
models/upsampling.py (Upsample2D); a name in Python keeps its tensor until it is bound anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autoquant.planner.footprint.config_values import MOST_LAYERS, integer, integers
from autoquant.planner.footprint.tape import Block, Tape

_STABLE_DIFFUSION_CHANNELS = (128, 256, 512, 512)


def decode(tape: Tape, config: Mapping[str, Any], batch: int, height: int, width: int) -> Block:
    """Decode ``batch`` images of ``height`` x ``width`` pixels; returns the images."""
    channels = integers(config, "block_out_channels", _STABLE_DIFFUSION_CHANNELS)
    scale = 2 ** (len(channels) - 1)
    h, w = height // scale, width // scale
    latents = tape.new(batch, integer(config, "latent_channels", 4), h, w)
    source = latents
    if config.get("use_post_quant_conv", True):
        source = tape.convolve(latents, batch, integer(config, "latent_channels", 4), h, w)
    x = tape.convolve(source, batch, channels[-1], h, w)
    x = _middle(tape, x, (batch, channels[-1], h, w), config)
    n_resnets = integer(config, "layers_per_block", 2, MOST_LAYERS) + 1
    x = _rise(tape, x, (batch, channels[-1], h, w), tuple(reversed(channels)), n_resnets)
    last = (batch, channels[0], height, width)
    for _ in ("norm", "activation"):
        x = _replaced(tape, x, last)
    images = tape.convolve(x, batch, integer(config, "out_channels", 3), height, width)
    tape.free(x, latents, *({source} - {latents}))
    return images


def _middle(
    tape: Tape, x: Block, shape: tuple[int, int, int, int], config: Mapping[str, Any]
) -> Block:
    """resnet, attention, resnet; the caller's ``x`` lives until the block ends."""
    batch, channels, h, w = shape
    y = _resnet(tape, x, shape, channels)
    if config.get("mid_block_add_attention", True):
        attended = _attend(tape, batch, h * w, channels)
        tape.free(y)
        y = attended
    z = _resnet(tape, y, shape, channels)
    tape.free(y, x)
    return z


def _rise(
    tape: Tape,
    x: Block,
    shape: tuple[int, int, int, int],
    channels: Sequence[int],
    n_resnets: int,
) -> Block:
    batch, width_in, h, w = shape
    for level, width_out in enumerate(channels):
        entered = x  # what the block was called with lives until it returns
        for _ in range(n_resnets):
            y = _resnet(tape, x, (batch, width_in, h, w), width_out)
            if x != entered:
                tape.free(x)
            x, width_in = y, width_out
        if level < len(channels) - 1:
            h, w = 2 * h, 2 * w
            enlarged = tape.new(batch, width_out, h, w)
            y = tape.convolve(enlarged, batch, width_out, h, w)
            tape.free(enlarged, x)
            x = y
        tape.free(entered)
    return x


def _resnet(tape: Tape, x: Block, shape: tuple[int, int, int, int], channels: int) -> Block:
    batch, channels_in, h, w = shape
    y = _replaced(tape, tape.new(*shape), shape)
    y = _convolved(tape, y, (batch, channels, h, w))
    for _ in ("norm", "activation"):
        y = _replaced(tape, y, (batch, channels, h, w))
    y = _convolved(tape, y, (batch, channels, h, w))
    shortcut = tape.convolve(x, batch, channels, h, w) if channels_in != channels else None
    total = tape.new(batch, channels, h, w)
    scaled = tape.new(batch, channels, h, w)
    tape.free(total, y, *([] if shortcut is None else [shortcut]))
    return scaled


def _attend(tape: Tape, batch: int, tokens: int, channels: int) -> Block:
    """One head over all pixels; the kernel keeps a float32 log-sum-exp of each row."""
    shape = (batch, tokens, channels)
    normed, query, key, value = (tape.new(*shape) for _ in range(4))
    with tape.scratch(batch, tokens, itemsize=4):
        attended = tape.new(*shape)
    tape.free(normed)
    projected = tape.new(*shape)
    tape.free(attended)
    joined = tape.new(*shape)
    tape.free(projected)
    scaled = tape.new(*shape)
    tape.free(joined, query, key, value)
    return scaled


def _replaced(tape: Tape, x: Block, shape: tuple[int, int, int, int]) -> Block:
    y = tape.new(*shape)
    tape.free(x)
    return y


def _convolved(tape: Tape, x: Block, shape: tuple[int, int, int, int]) -> Block:
    y = tape.convolve(x, *shape)
    tape.free(x)
    return y
