"""Images as arrays: (N, height, width, 3), float32, sRGB in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autoquant.errors import DegenerateImage, InputError
from autoquant.files import write_bytes

Images: TypeAlias = NDArray[np.float32]

BLACK_BELOW = 0.02
"""Nothing brighter than this is a black image: the +2 % bar of the PLUGE signal, by which displays
are set, is the darkest grey to be told from black (ITU-R BT.814). One brighter pixel is enough to
pass, so a night scene does."""

CONSTANT_WITHIN = 2 / 255
"""A range below this in each channel is a constant image: rounding to 8 bits leaves at most two
neighbouring levels, which is what rounding makes of a single colour. A faint gradient passes."""


def check_images(images: Images, prompts: Sequence[str], reference: Images | None = None) -> None:
    """Refuse images that no working pipeline draws.

    Args:
        images: One image per prompt.
        prompts: What was asked for, for the message.
        reference: The unquantized pipeline's images. Where one of them is itself constant ("a blank
            white page"), a constant candidate is no fault.

    Raises:
        DegenerateImage: An image is not finite, black or constant; names the first such prompt.
        InputError: The shapes do not fit.
    """
    check_shape(images, len(prompts))
    if reference is not None:
        check_shape(reference, len(prompts))
    for index, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
        fault = _fault(image)
        if fault is None:
            continue
        if reference is not None and np.isfinite(image).all() and _fault(reference[index]):
            continue
        raise DegenerateImage(f"The image of prompt {index} ({prompt!r}) {fault}.")


def check_shape(images: Images, n_images: int) -> None:
    """Require ``n_images`` RGB images.

    Raises:
        InputError: The array has another shape.
    """
    if images.ndim != 4 or images.shape[0] != n_images or images.shape[3] != 3:
        raise InputError(
            f"Images must have the shape ({n_images}, height, width, 3), got {images.shape}."
        )


def displayed(images: Images) -> Images:
    """Clip to [0, 1] and round to 8 bits: what a PNG of ``images`` holds, as float32."""
    return to_bytes(images).astype(np.float32) / np.float32(255)


def to_bytes(images: Images) -> NDArray[np.uint8]:
    """Clip to [0, 1] and round to 8 bits; same shape."""
    return (np.clip(images, 0, 1) * 255).round().astype(np.uint8)


def save_png(images: Images, directory: Path) -> list[Path]:
    """Write ``0000.png``, ``0001.png``, … into ``directory``, making it where needed.

    Each file appears whole or not at all. ``load_png`` of them equals ``displayed(images)``.

    Raises:
        InputError: A file cannot be written.
    """
    paths = [directory / f"{index:04d}.png" for index in range(len(images))]
    for path, pixels in zip(paths, to_bytes(images), strict=True):
        content = BytesIO()
        Image.fromarray(pixels).save(content, format="PNG")
        write_bytes(path, content.getvalue())
    return paths


def load_png(paths: Sequence[Path]) -> Images:
    """Read images of one size into one array.

    Raises:
        InputError: There is no path, or a file is missing, no image, or of another size.
    """
    if not paths:
        raise InputError("Give at least one image to load.")
    images = [_load(path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.shape != images[0].shape:
            raise InputError(
                f"Images must have one size: {path} has {image.shape[:2]}, {paths[0]} has "
                f"{images[0].shape[:2]} (height, width)."
            )
    return np.stack(images)


def _load(path: Path) -> Images:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(255)
    except OSError as error:  # PIL's UnidentifiedImageError is one
        raise InputError(f"Cannot read the image {path}: {error}.") from error


def _fault(image: Images) -> str | None:
    if not np.isfinite(image).all():
        n_bad = int((~np.isfinite(image)).any(axis=-1).sum())
        return f"is not finite in {n_bad} of {image.shape[0] * image.shape[1]} pixels"
    brightest = float(image.max())
    if brightest < BLACK_BELOW:
        return f"is black: its brightest value is {brightest:.4f}, below {BLACK_BELOW}"
    widest = float(np.ptp(image.reshape(-1, 3), axis=0).max())
    if widest < CONSTANT_WITHIN:
        return f"is constant: its values span {widest:.4f}, below {CONSTANT_WITHIN:.4f}"
    return None
