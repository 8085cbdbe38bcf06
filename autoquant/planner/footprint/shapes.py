"""A pipeline as its headers and configs describe it: names, dtypes and shapes, no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

DTYPE_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E8M0": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "F64": 64,
    "I64": 64,
    "U64": 64,
    "C64": 64,
}
"""Bits of each dtype of the safetensors format (safetensors/src/tensor.rs, enum Dtype)."""

FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
"""Dtypes that loading casts to the compute dtype."""

COMPUTE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


@dataclass(frozen=True)
class TensorShape:
    """One stored tensor.

    Attributes:
        dtype: As safetensors writes it (``BF16``), or a GGUF type (``Q4_K``).
        shape: In PyTorch's order, whatever the file's.
        stored_bytes: Bytes in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    stored_bytes: int

    @classmethod
    def plain(cls, dtype: str, shape: tuple[int, ...]) -> TensorShape:
        """A tensor that is stored without blocks or padding."""
        return cls(dtype, shape, prod(shape) * DTYPE_BITS[dtype] // 8)

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


@dataclass(frozen=True, eq=False)
class ComponentShapes:
    """One component that holds weights; equal only to itself, so that results can be kept for it.

    Attributes:
        library: ``diffusers`` or ``transformers``.
        class_name: Like ``FluxTransformer2DModel``.
        config: Its ``config.json``.
        tensors: Its stored tensors by name.
    """

    name: str
    library: str
    class_name: str
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorShape]

    @property
    def stored_bytes(self) -> int:
        """Bytes of its weights on disk."""
        return sum(tensor.stored_bytes for tensor in self.tensors.values())


@dataclass(frozen=True, eq=False)
class ModelShapes:
    """A whole pipeline; equal only to itself.

    Attributes:
        class_name: Like ``FluxPipeline``; empty where the file does not say.
        components: Those with weights, in the pipeline's order.
        notes: What a reader should know of how the shapes were found.
    """

    class_name: str
    components: Mapping[str, ComponentShapes]
    notes: tuple[str, ...] = field(default=())
