"""Shape lists: a pipeline's headers and configs as one small JSON file, without any weights.

Names that differ in a number alone share an entry: ``blocks.{0-18}.attn.to_q.weight`` is 19
tensors. The value is the dtype and the shape, ``BF16 3072x3072``; a scalar has no shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from autoquant.errors import InputError
from autoquant.planner.footprint.shapes import (
    DTYPE_BITS,
    ComponentShapes,
    ModelShapes,
    TensorShape,
)

SCHEMA = "autoquant.shapes/1"

_RANGE = re.compile(r"\{(\d{1,6})-(\d{1,6})\}")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
# The largest pipeline that diffusers 0.42 has is below a tenth of this.
_MOST_TENSORS = 200_000
_LARGEST_FILE = 16_000_000

Described = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9_]+( \d{1,12}(x\d{1,12}){0,7})?$")]


class _Component(BaseModel):
    model_config = ConfigDict(extra="forbid")

    library: str
    class_name: str
    origin: str
    config: dict[str, Any]
    tensors: dict[str, Described]


class _ShapeList(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_: Literal["autoquant.shapes/1"]
    class_name: str
    components: dict[str, _Component]


def read_shape_list(path: Path) -> ModelShapes:
    """Read a shape list.

    Raises:
        InputError: It cannot be read, or is no shape list.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise InputError(f"{path} is larger than any shape list.")
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror or error}.") from error
    return parse_shape_list(str(path), text)


def parse_shape_list(name: str, text: bytes) -> ModelShapes:
    """Check the text of a shape list.

    Raises:
        InputError: It is none.
    """
    try:
        found = _ShapeList.model_validate_json(text.replace(b'"schema"', b'"schema_"', 1))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the top level"
        raise InputError(
            f"{name} is no shape list ({SCHEMA}): at {place[:80]}: {first['msg']}."
        ) from error
    components = {
        component_name: ComponentShapes(
            name=component_name,
            library=part.library,
            class_name=part.class_name,
            config=part.config,
            tensors=_expanded(name, part.tensors),
        )
        for component_name, part in found.components.items()
    }
    return ModelShapes(found.class_name, components)


def compressed(tensors: Mapping[str, TensorShape]) -> dict[str, str]:
    """Write tensors as the entries of a shape list."""
    entries = {
        name: " ".join([tensor.dtype, "x".join(map(str, tensor.shape))]).strip()
        for name, tensor in tensors.items()
    }
    most_numbers = max((len(_NUMBER.findall(name)) for name in entries), default=0)
    for position in range(most_numbers):
        entries = _merged(entries, position)
    return entries


def _merged(entries: Mapping[str, str], position: int) -> dict[str, str]:
    """Join runs of names that differ in their number at ``position`` alone."""
    families: dict[tuple[str, str, str], list[int]] = {}
    for name, described in entries.items():
        numbers = [*_NUMBER.finditer(name), None]
        match = numbers[position] if position < len(numbers) else None
        head, tail = (name[: match.start()], name[match.end() :]) if match else (name, "")
        families.setdefault((head, tail, described), []).extend([int(match[0])] if match else [])
    merged: dict[str, str] = {}
    for (head, tail, described), numbers_found in families.items():
        for first, last in _runs(numbers_found):
            text = str(first) if first == last else f"{{{first}-{last}}}"
            merged[f"{head}{text}{tail}"] = described
        if not numbers_found:
            merged[head] = described
    return merged


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    ordered = sorted(numbers)
    start = 0
    for index in range(1, len(ordered) + 1):
        if index == len(ordered) or ordered[index] != ordered[index - 1] + 1:
            yield ordered[start], ordered[index - 1]
            start = index


def _expanded(name: str, entries: Mapping[str, str]) -> dict[str, TensorShape]:
    tensors: dict[str, TensorShape] = {}
    for template, described in entries.items():
        ranges = [range(int(a), int(b) + 1) for a, b in _RANGE.findall(template)]
        if len(tensors) + prod(map(len, ranges)) > _MOST_TENSORS:
            raise InputError(f"{name} lists more than {_MOST_TENSORS} tensors.")
        dtype, _, sizes = described.partition(" ")
        if dtype not in DTYPE_BITS:
            raise InputError(f"{name}: {template[:80]} has the unknown dtype {dtype[:20]!r}.")
        shape = tuple(map(int, sizes.split("x"))) if sizes else ()
        tensor = TensorShape.plain(dtype, shape)
        blank = _RANGE.sub("\0", template).split("\0")
        for numbers in product(*ranges):
            pieces = [part for pair in zip(blank, (*numbers, ""), strict=True) for part in pair]
            tensors["".join(map(str, pieces))] = tensor
    return tensors
