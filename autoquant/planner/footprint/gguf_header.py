"""GGUF headers, read a few kilobytes at a time and never trusted for an allocation.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Values of the metadata are
skipped, not kept: only names, shapes and types of tensors are wanted.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod

from autoquant.errors import InputError
from autoquant.planner.footprint.headers import ReadRange
from autoquant.planner.footprint.shapes import TensorShape
from autoquant.planner.footprint.storage_formats import GGUF_BLOCKS

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_CHUNK = 1 << 16

# A tokenizer of 250 000 words takes 10 MB; a pipeline's transformer has 2 000 tensors.
_LONGEST_HEADER = 64_000_000
_MOST_ENTRIES = 1_000_000
_LONGEST_NAME = 65_535
_MOST_DIMENSIONS = 4
_LARGEST_SIZE = 1 << 48
_DEFAULT_ALIGNMENT = 32
_ALIGNMENT_KEY = b"general.alignment"

_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_UINT32, _STRING, _ARRAY = 4, 8, 9

# The numbers of ggml.h, enum ggml_type; Q8_1 and Q8_K (9, 15) exist in memory only.
_TYPES = {
    **dict(enumerate(("F32", "F16", "Q4_0", "Q4_1"))),
    **dict(enumerate(("Q5_0", "Q5_1", "Q8_0"), 6)),
    **dict(enumerate(("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"), 10)),
    **dict(enumerate(("IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S"), 16)),
    **dict(enumerate(("IQ2_S", "IQ4_XS", "I8", "I16", "I32", "I64", "F64", "IQ1_M", "BF16"), 22)),
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
}


def read_gguf_header(name: str, size: int, read: ReadRange) -> dict[str, TensorShape]:
    """Read the tensors of one GGUF file, shapes in PyTorch's order.

    Args:
        name: What to call the file in errors.
        size: Bytes of the whole file.
        read: Reads a range of it.

    Raises:
        InputError: The header is truncated, or its numbers cannot be true of this file.
    """
    cursor = _Cursor(name, size, read)
    if cursor.take(4) != _MAGIC:
        raise cursor.damaged("it does not begin with GGUF")
    version = cursor.integer(4)
    if version not in _VERSIONS:
        raise cursor.damaged(f"it has version {version}, and 2 and 3 are known")
    n_tensors, n_values = cursor.count(), cursor.count()
    alignment = _DEFAULT_ALIGNMENT
    for _ in range(n_values):
        key = cursor.string()
        kind = cursor.integer(4)
        if key == _ALIGNMENT_KEY and kind == _UINT32:
            alignment = cursor.integer(4)
        else:
            _skip(cursor, kind)
    if not 0 < alignment <= _CHUNK:
        raise cursor.damaged(f"it aligns tensors to {alignment} bytes")
    placed = dict(_tensor(cursor) for _ in range(n_tensors))
    if len(placed) != n_tensors:
        raise cursor.damaged("two tensors have one name")
    start = -(-cursor.position // alignment) * alignment
    _check_places(cursor, placed, start)
    return {tensor_name: tensor for tensor_name, (tensor, _) in placed.items()}


class _Cursor:
    """Goes through the header once; every step is checked against the end of the file."""

    def __init__(self, name: str, size: int, read: ReadRange) -> None:
        self._name = name
        self.size = size
        self._read = read
        self.position = 0
        self._chunk = b""
        self._chunk_start = 0

    def take(self, length: int) -> bytes:
        """The next bytes."""
        end = self.position + length
        if end > min(self.size, _LONGEST_HEADER):
            raise self.damaged(f"its header does not end within its {self.size} bytes")
        offset = self.position - self._chunk_start
        if offset < 0 or offset + length > len(self._chunk):
            self._chunk = self._read(self.position, max(length, _CHUNK))
            self._chunk_start, offset = self.position, 0
        found = self._chunk[offset : offset + length]
        if len(found) != length:
            raise self.damaged(f"it ends at byte {self.position + len(found)}")
        self.position = end
        return found

    def skip(self, length: int) -> None:
        """Pass over bytes without reading them."""
        if self.position + length > min(self.size, _LONGEST_HEADER):
            raise self.damaged(f"its header does not end within its {self.size} bytes")
        self.position += length

    def integer(self, n_bytes: int) -> int:
        """An unsigned number."""
        return int.from_bytes(self.take(n_bytes), "little")

    def count(self) -> int:
        """A number of things that are still to come, each at least a byte long."""
        number = self.integer(8)
        if number > min(_MOST_ENTRIES, self.size):
            raise self.damaged(f"it announces {number} entries")
        return number

    def string(self) -> bytes:
        """A short text."""
        length = self.integer(8)
        if length > _LONGEST_NAME:
            raise self.damaged(f"it has a name of {length} bytes")
        return self.take(length)

    def damaged(self, what: str) -> InputError:
        """The error for this file."""
        return InputError(f"{self._name} is no sound GGUF file: {what}; fetch it again.")


def _skip(cursor: _Cursor, kind: int) -> None:
    """Pass over one value of the metadata."""
    if kind in _SCALAR_BYTES:
        cursor.skip(_SCALAR_BYTES[kind])
    elif kind == _STRING:
        cursor.skip(cursor.integer(8))
    elif kind == _ARRAY:
        _skip_array(cursor)
    else:
        raise cursor.damaged(f"its metadata has a value of the unknown type {kind}")


def _skip_array(cursor: _Cursor) -> None:
    kind, length = cursor.integer(4), cursor.count()
    if kind in _SCALAR_BYTES:
        cursor.skip(_SCALAR_BYTES[kind] * length)
        return
    if kind != _STRING:
        raise cursor.damaged(f"its metadata has an array of the unknown type {kind}")
    for _ in range(length):
        cursor.skip(cursor.integer(8))


def _tensor(cursor: _Cursor) -> tuple[str, tuple[TensorShape, int]]:
    name = cursor.string().decode("utf-8", errors="replace")
    n_dimensions = cursor.integer(4)
    if n_dimensions > _MOST_DIMENSIONS:
        raise cursor.damaged(f"{name[:60]} has {n_dimensions} dimensions")
    sizes = [cursor.integer(8) for _ in range(n_dimensions)]
    kind = cursor.integer(4)
    if kind not in _TYPES:
        raise cursor.damaged(f"{name[:60]} has the unknown type {kind}")
    numbers, block_bytes = GGUF_BLOCKS[_TYPES[kind]]
    if any(size > _LARGEST_SIZE for size in sizes) or (sizes and sizes[0] % numbers):
        raise cursor.damaged(f"{name[:60]} is {_TYPES[kind]} of the shape {sizes}")
    stored = prod(sizes) // numbers * block_bytes
    return name, (TensorShape(_TYPES[kind], tuple(reversed(sizes)), stored), cursor.integer(8))


def _check_places(cursor: _Cursor, placed: dict[str, tuple[TensorShape, int]], start: int) -> None:
    ranges = sorted((offset, offset + tensor.stored_bytes) for tensor, offset in placed.values())
    for (_, end), (begin, _) in pairwise(ranges):
        if begin < end:
            raise cursor.damaged(f"its tensors overlap at byte {start + begin}")
    if ranges and start + ranges[-1][1] > cursor.size:
        raise cursor.damaged(
            f"its tensors end at byte {start + ranges[-1][1]}, the file has {cursor.size}"
        )
