"""Images as data URIs, since the report is one file."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from autoquant.errors import InputError
from autoquant.metrics.images import to_bytes
from autoquant.planner.report.difference import difference_map, paint
from autoquant.planner.report.evidence import Evidence, ImagePair

LOSSLESS_BYTES = 24 * 2**20
"""Above this sum of PNG sizes the images are embedded with loss: a page of several hundred MB opens
on no phone."""

Quality = Literal["lossless", "lossy"]
_LOSSY_QUALITY = 95


@dataclass(frozen=True)
class Picture:
    """One pair, ready to be shown.

    Attributes:
        pair: Where it comes from.
        reference: Data URI of the unquantized image.
        planned: Data URI of the planned image.
        difference: Data URI of the difference map.
        width: Pixels.
        height: Pixels.
        identical: Whether not one 8-bit value differs.
    """

    pair: ImagePair
    reference: str
    planned: str
    difference: str
    width: int
    height: int
    identical: bool


@dataclass(frozen=True)
class Gallery:
    """All pairs that can be shown.

    Attributes:
        pictures: In the order of the workload.
        unreadable: Why the other pairs whose files are there cannot be shown.
        quality: Whether the pixels are exactly those that were measured.
    """

    pictures: tuple[Picture, ...]
    unreadable: tuple[str, ...]
    quality: Quality


def make_gallery(evidence: Evidence) -> Gallery:
    """Encode every pair, one at a time: many large ones do not fit into memory together."""
    total = sum(pair.stored_bytes for pair in evidence.pairs)
    total += sum(candidate.stored_bytes for candidate in evidence.candidates)
    quality: Quality = "lossless" if total <= LOSSLESS_BYTES else "lossy"
    pictures: list[Picture] = []
    unreadable: list[str] = []
    for pair in evidence.pairs:
        try:
            pictures.append(encode_pair(pair, quality))
        except InputError as error:
            unreadable.append(str(error))
    return Gallery(tuple(pictures), tuple(unreadable), quality)


def encode_pair(pair: ImagePair, quality: Quality) -> Picture:
    """Encode both images of a pair and their difference map.

    Raises:
        InputError: One is missing, no image, or the sizes differ.
    """
    reference, planned = pair.load()
    as_bytes = [to_bytes(image) for image in (reference, planned)]
    encoded = [_data_uri(Image.fromarray(pixels), quality) for pixels in as_bytes]
    return Picture(
        pair=pair,
        reference=encoded[0],
        planned=encoded[1],
        difference=_data_uri(paint(difference_map(reference, planned)), quality),
        width=reference.shape[1],
        height=reference.shape[0],
        identical=bool(np.array_equal(as_bytes[0], as_bytes[1])),
    )


def _data_uri(image: Image.Image, quality: Quality) -> str:
    # The pixels are encoded anew, so that nothing else in a file from outside is carried along.
    content = io.BytesIO()
    if quality == "lossless":
        image.convert("RGB").save(content, format="WEBP", lossless=True)
    else:
        image.convert("RGB").save(content, format="WEBP", quality=_LOSSY_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"
