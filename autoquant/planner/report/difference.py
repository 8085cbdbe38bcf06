"""Where two images differ, as a picture: the FLIP map in colours that need no colour vision."""

from __future__ import annotations

import flip_evaluator
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autoquant.metrics.images import Images

BRIGHTEST = 0.5
"""FLIP from which on the map is at its brightest. It is the same in every report, so that maps of
two reports can be compared; hardly a pixel of a usable candidate is above it."""

LEGEND = (0.0, 0.02, 0.1, 0.25, BRIGHTEST)

# Anchors of matplotlib's magma (CC0), dark to bright: lightness alone orders it.
COLOURS = (
    (0, 0, 4),
    (28, 16, 68),
    (79, 18, 123),
    (129, 37, 129),
    (181, 54, 122),
    (229, 80, 100),
    (251, 135, 97),
    (254, 194, 135),
    (252, 253, 191),
)


def difference_map(reference: Images, planned: Images) -> NDArray[np.float32]:
    """FLIP of each pixel, 0 to 1, shape (height, width); the settings are those of the metric."""
    error, _, _ = flip_evaluator.evaluate(
        np.ascontiguousarray(reference),
        np.ascontiguousarray(planned),
        "LDR",
        inputsRGB=True,
        applyMagma=False,
    )
    return np.asarray(error, dtype=np.float32)[..., 0]


def position(flip: float) -> float:
    """Where a value lies on the colour scale, 0 to 1: a square root, so that faint ones show."""
    return float(np.sqrt(np.clip(flip / BRIGHTEST, 0.0, 1.0)))


def paint(error: NDArray[np.float32]) -> Image.Image:
    """The map in colours, as an image of 256 colours."""
    scaled = np.sqrt(np.clip(error / BRIGHTEST, 0.0, 1.0))
    image = Image.fromarray((scaled * 255).round().astype(np.uint8), mode="P")
    image.putpalette(_palette().tobytes())
    return image


def _palette() -> NDArray[np.uint8]:
    anchors = np.asarray(COLOURS, dtype=np.float64)
    at = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(at, np.arange(len(anchors)), anchors[:, c]) for c in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8)
