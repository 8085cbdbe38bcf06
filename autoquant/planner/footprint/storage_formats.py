"""Exact bytes behind one quantized Linear weight, scales and zero points included, by scheme.

Each formula was read in the backend's source and is tested to the byte against really quantized
layers. ``n`` is rows times columns, a row one output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

from autoquant.errors import BackendUnavailable
from autoquant.search_spaces.scheme import Scheme

# bitsandbytes: a float32 absmax a block of 64, a code book of 16 float32 (functional.py,
# quantize_4bit and get_4bit_type).
_BNB_BLOCK = 64
_BNB_CODE_BOOK = 16 * 4
_FLOAT32 = 4

# search_spaces/backends/modelopt.py takes the first of these that divides the row.
_MODELOPT_BLOCKS = (128, 64, 32, 16)

# quanto: the first of these that divides the row; a row of at most 128 is one group
# (optimum/quanto/nn/qmodule.py).
_QUANTO_GROUPS = (128, 96, 64, 32)
_QUANTO_SCALARS = 2  # input_scale and output_scale of every QLinear

# torchao's tiled int4 layout pads columns to 1024 and rows to 8; a group of 128 has a bfloat16
# scale and zero point (torchao/utils.py, find_multiple in the tile-packed workflow).
_TINYGEMM_COLUMNS = 1024
_TINYGEMM_ROWS = 8
_TINYGEMM_GROUP = 128

GGUF_BLOCKS = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
    "IQ2_XXS": (256, 66),
    "IQ2_XS": (256, 74),
    "IQ3_XXS": (256, 98),
    "IQ1_S": (256, 50),
    "IQ4_NL": (32, 18),
    "IQ3_S": (256, 110),
    "IQ2_S": (256, 82),
    "IQ4_XS": (256, 136),
    "I8": (1, 1),
    "I16": (1, 2),
    "I32": (1, 4),
    "I64": (1, 8),
    "F64": (1, 8),
    "IQ1_M": (256, 56),
    "TQ1_0": (256, 54),
    "TQ2_0": (256, 66),
    "MXFP4": (32, 17),
}
"""Numbers and bytes of one block (ggml/src/ggml-common.h; gguf GGML_QUANT_SIZES)."""


@dataclass(frozen=True)
class StorageFormat:
    """How a scheme stores one weight.

    Attributes:
        bits: Nominal payload in bits per weight, scales not counted.
        parts: ``(rows, columns, compute bytes)`` to the bytes of each tensor: the payload, then
            scales and zero points. An allocator rounds each of them.
        fits: ``(rows, columns)`` that the backend can store.
        scalars: Numbers in the compute dtype that each layer gets beside its weight.
        casts_bias: Whether the bias is stored like the weight.
        spares_dtype_sensitive: Whether layers whose dtype their model reads stay as they are
            (search_spaces/linears.py, ``dtype_sensitive``).
    """

    bits: float
    parts: Callable[[int, int, int], tuple[int, ...]]
    fits: Callable[[int, int], bool] = lambda rows, columns: True
    scalars: int = 0
    casts_bias: bool = False
    spares_dtype_sensitive: bool = False

    def weight_bytes(self, rows: int, columns: int, compute_bytes: int) -> int:
        """Bytes of one weight with all that belongs to it."""
        return sum(self.parts(rows, columns, compute_bytes))


_Parts = Callable[[int, int, int], tuple[int, ...]]


def _bitsandbytes_4bit(rows: int, columns: int, _: int) -> tuple[int, ...]:
    n = rows * columns
    return -(-n // 2), -(-n // _BNB_BLOCK) * _FLOAT32, _BNB_CODE_BOOK


def _row_scales(*scale_bytes: int) -> _Parts:
    return lambda rows, columns, _: (rows * columns, *(rows * one for one in scale_bytes))


def _row_scales_in_compute_dtype(rows: int, columns: int, compute_bytes: int) -> tuple[int, ...]:
    return rows * columns, rows * compute_bytes


def _quanto_group(columns: int) -> int:
    if columns <= _QUANTO_GROUPS[0]:
        return columns
    return next((group for group in _QUANTO_GROUPS if columns % group == 0), columns)


def _quanto_packed(per_byte: int) -> _Parts:
    def parts(rows: int, columns: int, compute_bytes: int) -> tuple[int, ...]:
        group = _quanto_group(columns)
        groups = rows * columns // group
        scales = groups * compute_bytes
        return -(-groups // per_byte) * group, scales, scales

    return parts


def _tinygemm_int4(rows: int, columns: int, _: int) -> tuple[int, ...]:
    padded_columns = -(-columns // _TINYGEMM_COLUMNS) * _TINYGEMM_COLUMNS
    padded_rows = -(-rows // _TINYGEMM_ROWS) * _TINYGEMM_ROWS
    scales = padded_columns // _TINYGEMM_GROUP * padded_rows * 4
    return padded_columns * padded_rows // 2, scales


def _gguf(precision: str) -> StorageFormat:
    numbers, block_bytes = GGUF_BLOCKS[precision]
    return StorageFormat(
        bits=block_bytes * 8 / numbers,
        parts=lambda rows, columns, _: (rows * columns // numbers * block_bytes,),
        fits=lambda _, columns: columns % numbers == 0,
        spares_dtype_sensitive=True,
    )


def _sdnq(bits: int, group: int, per_group: int, together: int = 1) -> StorageFormat:
    """``bits`` a weight, ``per_group`` float32 for each group (sdnq/quantizer.py)."""

    def parts(rows: int, columns: int, _: int) -> tuple[int, ...]:
        groups = columns // group
        if columns % group:  # then fewer and wider ones, the first number that divides the row
            groups = next((n for n in range(groups - 1, 1, -1) if columns % n == 0), 1)
        return (rows * columns * bits // 8, *(rows * groups * _FLOAT32,) * per_group)

    return StorageFormat(
        bits,
        parts,
        lambda rows, columns: rows * columns % together == 0,
        spares_dtype_sensitive=bits != 8,
    )


def _modelopt_int8(rows: int, columns: int, compute_bytes: int) -> tuple[int, ...]:
    """A scale a row, and the maximum that it was made from."""
    return rows * columns, rows * compute_bytes, rows * compute_bytes


def _modelopt_int4(rows: int, columns: int, compute_bytes: int) -> tuple[int, ...]:
    block = next(size for size in _MODELOPT_BLOCKS if columns % size == 0)
    blocks = rows * columns // block
    return rows * columns // 2, blocks * compute_bytes, blocks * _FLOAT32


def _auto_round(bits: int) -> StorageFormat:
    """Codes, and for each group a scale in the compute dtype and a zero point as wide as a code."""

    def parts(rows: int, columns: int, compute_bytes: int) -> tuple[int, ...]:
        groups = rows * columns // next(group for group in (128, 64, 32) if columns % group == 0)
        return rows * columns * bits // 8, groups * compute_bytes, groups * bits // 8

    return StorageFormat(
        bits,
        parts,
        lambda rows, columns: rows % 32 == columns % 32 == 0,
        spares_dtype_sensitive=True,
    )


_BNB_4BIT = StorageFormat(
    4, _bitsandbytes_4bit, lambda _, columns: columns % 2 == 0, spares_dtype_sensitive=True
)
_PLAIN_FLOAT8 = StorageFormat(8, _row_scales(), casts_bias=True, spares_dtype_sensitive=True)
_TORCHAO_INT8 = StorageFormat(8, _row_scales(_FLOAT32, 1))
_TORCHAO_FLOAT8 = StorageFormat(8, _row_scales(_FLOAT32))


def _quanto_packs(_: int, columns: int) -> bool:
    return columns <= _QUANTO_GROUPS[0] or columns % _QUANTO_GROUPS[-1] == 0


_FORMATS: dict[str, StorageFormat] = {
    "bitsandbytes:nf4": _BNB_4BIT,
    "bitsandbytes:fp4": _BNB_4BIT,
    "bitsandbytes:int8": StorageFormat(8, _row_scales(_FLOAT32)),
    "torchao:int8wo": _TORCHAO_INT8,
    "torchao:int8dq": _TORCHAO_INT8,
    "torchao:float8wo": _TORCHAO_FLOAT8,
    "torchao:float8dq": StorageFormat(
        8, _row_scales(_FLOAT32), lambda rows, columns: rows % 16 == 0 and columns % 16 == 0
    ),
    "torchao:int4wo": StorageFormat(
        4, _tinygemm_int4, lambda _, columns: columns % _TINYGEMM_GROUP == 0 and columns >= 384
    ),
    "quanto:int8": StorageFormat(
        8, _row_scales_in_compute_dtype, lambda _, columns: columns % 16 == 0, _QUANTO_SCALARS
    ),
    "quanto:float8": StorageFormat(8, _row_scales_in_compute_dtype, scalars=_QUANTO_SCALARS),
    "quanto:int4": StorageFormat(4, _quanto_packed(2), _quanto_packs, _QUANTO_SCALARS),
    "quanto:int2": StorageFormat(2, _quanto_packed(4), _quanto_packs, _QUANTO_SCALARS),
    "layerwise:float8_e4m3fn": _PLAIN_FLOAT8,
    "layerwise:float8_e5m2": _PLAIN_FLOAT8,
    "modelopt:int8": StorageFormat(8, _modelopt_int8),
    "modelopt:int4": StorageFormat(
        4,
        _modelopt_int4,
        lambda _, columns: columns % _MODELOPT_BLOCKS[-1] == 0,
        spares_dtype_sensitive=True,
    ),
    "auto-round:int4": _auto_round(4),
    "auto-round:int3": _auto_round(3),
    "auto-round:int2": _auto_round(2),
    "sdnq:int8": _sdnq(8, 1024, 1),
    "sdnq:float8_e4m3fn": replace(_sdnq(8, 1024, 1), spares_dtype_sensitive=True),
    "sdnq:int6": _sdnq(6, 256, 1, together=4),
    "sdnq:uint4": _sdnq(4, 64, 2, together=2),
    "sdnq:int4": _sdnq(4, 64, 1, together=2),
    **{f"gguf:{precision}": _gguf(precision) for precision in GGUF_BLOCKS},
}


@cache
def storage_format(scheme: str) -> StorageFormat:
    """How ``scheme`` stores a weight.

    Raises:
        InputError: It is no scheme at all.
        BackendUnavailable: Its storage is not known; names the schemes whose storage is.
    """
    found = _FORMATS.get(str(Scheme.parse(scheme)))
    if found is None:
        raise BackendUnavailable(
            f"The bytes that {scheme!r} stores are not known. Known: {', '.join(_FORMATS)}."
        )
    return found


KNOWN_SCHEMES = frozenset(_FORMATS)
"""Schemes whose storage is known."""
