"""Decoding one image at a time, in tiles, as ``enable_slicing`` and ``enable_tiling`` do."""

from __future__ import annotations

from dataclasses import replace

from autoquant.planner.footprint.activations import decoder_tape
from autoquant.planner.footprint.config_values import integer
from autoquant.planner.footprint.family import decoder_of
from autoquant.planner.footprint.request import Request
from autoquant.planner.footprint.shapes import ModelShapes
from autoquant.planner.footprint.tape import Event, Tape

# diffusers 0.42: AutoencoderKL takes its sample_size (tile_sample_min_size), the causal video
# autoencoders 256 pixels.
_VIDEO_TILE = 256
_COLOURS = 3


def tiled_decoder_tape(model: ModelShapes, request: Request) -> Tape:
    """Decoding with slices and tiles; images no larger than a tile are decoded whole."""
    tile = tile_pixels(model)
    one = replace(
        request, batch=1, height=min(request.height, tile), width=min(request.width, tile)
    )
    tape = decoder_tape(model, one)
    if one == request:
        return tape
    # All decoded tiles wait, are blended, and are joined: the images are there twice.
    joined = Tape(tape.itemsize)
    pixels = request.batch * _COLOURS * request.height * request.width
    images = [joined.new(pixels), joined.new(pixels)]
    offset = len(joined.events)
    held = joined.live_bytes
    joined.events += [
        Event(type(event.block)(event.block + offset), event.n_bytes) for event in tape.events
    ]
    joined.peak_bytes = held + tape.peak_bytes
    joined.free(*images)
    return joined


def tile_pixels(model: ModelShapes) -> int:
    """Pixels along one side of a tile."""
    vae = decoder_of(model)
    if vae is None:
        return _VIDEO_TILE
    return integer(vae.config, "sample_size", _VIDEO_TILE)
