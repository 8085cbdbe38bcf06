"""Safetensors headers, read with suspicion: every number in them is checked before it is used.

A file is 8 bytes of header length, the header as JSON, then the tensors' bytes without gaps
(https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from math import prod
from typing import Any

from autoquant.errors import InputError
from autoquant.planner.footprint.shapes import DTYPE_BITS, TensorShape

ReadRange = Callable[[int, int], bytes]
"""``read(offset, length)``; gives fewer bytes only at the end of the file."""

_PREFIX = 8
# A header of FLUX.1-dev's transformer takes 0.1 MB. The hub's own client refuses more than this
# (huggingface_hub/constants.py, SAFETENSORS_MAX_HEADER_LENGTH).
LONGEST_HEADER = 25_000_000
_LARGEST_RANK = 16
_METADATA = "__metadata__"


def read_header(name: str, size: int, read: ReadRange) -> dict[str, TensorShape]:
    """Read the tensors of one safetensors file.

    Args:
        name: What to call the file in errors.
        size: Bytes of the whole file.
        read: Reads a range of it.

    Raises:
        InputError: The header is truncated, is no JSON, or its numbers contradict each other or the
            size of the file.
    """
    length = int.from_bytes(read(0, _PREFIX), "little") if size >= _PREFIX else 0
    if not 2 <= length <= min(LONGEST_HEADER, size - _PREFIX):
        raise _damaged(
            name,
            f"it announces a header of {length} bytes, but the file has {size} bytes "
            f"and a header at most {LONGEST_HEADER}",
        )
    text = read(_PREFIX, length)
    if len(text) != length:
        raise _damaged(name, f"it ends after {len(text)} of {length} header bytes")
    return parse_header(name, text, size - _PREFIX - length)


def parse_header(name: str, text: bytes, data_bytes: int) -> dict[str, TensorShape]:
    """Check one header against the bytes that follow it.

    Raises:
        InputError: As for ``read_header``.
    """
    entries = _json_object(name, text)
    entries.pop(_METADATA, None)
    tensors: dict[str, TensorShape] = {}
    ranges: list[tuple[int, int]] = []
    for tensor_name, entry in entries.items():
        tensor, start = _tensor(name, tensor_name, entry)
        tensors[tensor_name] = tensor
        ranges.append((start, start + tensor.stored_bytes))
    ranges.sort()
    for (_, end), (start, _) in pairwise([(0, 0), *ranges]):
        if start != end:
            what = "overlap" if start < end else "leave a gap"
            raise _damaged(name, f"its tensors {what} at byte {min(start, end)}")
    described = ranges[-1][1] if ranges else 0
    if described != data_bytes:
        raise _damaged(name, f"it describes {described} bytes of tensors, {data_bytes} are there")
    return tensors


def _json_object(name: str, text: bytes) -> dict[str, Any]:
    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=_distinct)
    except RecursionError as error:
        raise _damaged(name, "its header nests without end") from error
    except ValueError as error:
        raise _damaged(name, f"its header is no JSON ({error})") from error
    if not isinstance(entries, dict):
        raise _damaged(name, "its header is no JSON object")
    return entries


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _tensor(name: str, tensor_name: str, entry: Any) -> tuple[TensorShape, int]:
    fields = entry if isinstance(entry, dict) else {}
    dtype = fields.get("dtype")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _damaged(name, f"{_short(tensor_name)} has the unknown dtype {_short(dtype)}")
    shape = _sizes(fields.get("shape"))
    if shape is None or len(shape) > _LARGEST_RANK:
        raise _damaged(name, f"{_short(tensor_name)} has the shape {_short(fields.get('shape'))}")
    offsets = _sizes(fields.get("data_offsets"))
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _damaged(
            name, f"{_short(tensor_name)} has the offsets {_short(fields.get('data_offsets'))}"
        )
    bits = prod(shape) * DTYPE_BITS[dtype]
    if bits % 8 or bits // 8 != offsets[1] - offsets[0]:
        raise _damaged(
            name,
            f"{_short(tensor_name)} is {dtype} {_short(list(shape))}, which is not the "
            f"{_short(offsets[1] - offsets[0])} bytes that its offsets span",
        )
    return TensorShape(dtype, shape, bits // 8), offsets[0]


def _sizes(numbers: Any) -> tuple[int, ...] | None:
    # bool is an int to isinstance; 2**63 is beyond any file system.
    if isinstance(numbers, list) and all(type(n) is int and 0 <= n < 2**63 for n in numbers):
        return tuple(numbers)
    return None


def _short(value: Any) -> str:
    try:
        text = str(value)
    except ValueError:  # an integer of more digits than Python prints
        text = "a number without end"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _damaged(name: str, what: str) -> InputError:
    return InputError(f"{name} is no sound safetensors file: {what}; fetch it again.")
