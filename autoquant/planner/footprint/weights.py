"""Bytes that a component holds once it is loaded and its choice is carried out."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

from autoquant.planner.footprint.config_values import integer
from autoquant.planner.footprint.layers import (
    eligible_layers,
    is_dtype_sensitive,
    is_kept_in_float32,
    tied_names,
)
from autoquant.planner.footprint.shapes import (
    COMPUTE_BYTES,
    FLOATS,
    ComponentShapes,
    TensorShape,
)
from autoquant.planner.footprint.storage_formats import storage_format
from autoquant.search_spaces.exclusions import without_excluded
from autoquant.search_spaces.fuse import FUSED_FROM
from autoquant.search_spaces.scheme import NONE, Choice

_FLOAT8 = "F8_"
# torchao and quanto weights report the compute dtype, so nothing that reads it is misled.
_INT8_PRECISIONS = frozenset({"bitsandbytes:int8"})


def tensor_bytes(component: ComponentShapes, compute_dtype: str) -> dict[str, int]:
    """Bytes of each tensor when the component is loaded unquantized, tied copies left out."""
    ignored = tied_names(component)
    prequantized = is_prequantized(component)
    return {
        name: _loaded_bytes(component, name, tensor, compute_dtype, prequantized)
        for name, tensor in component.tensors.items()
        if name not in ignored
    }


def component_bytes(component: ComponentShapes, choice: Choice, compute_dtype: str) -> int:
    """Bytes of ``component`` under ``choice``, buffers that no file stores included.

    Raises:
        BackendUnavailable: The storage of the scheme is not known.
    """
    return sum(held_tensor_bytes(component, choice, compute_dtype)) + _computed_buffers(component)


def held_tensor_bytes(component: ComponentShapes, choice: Choice, compute_dtype: str) -> list[int]:
    """Bytes of each tensor that stays, in the order of the header, weights with their scales.

    A quantized weight is one entry although its scales are tensors of their own: they are small.
    """
    held = tensor_bytes(component, compute_dtype)
    for path, stored in quantized_bytes(component, choice, compute_dtype).items():
        first, *others = (f"{part}.weight" for part in path.split(" + "))
        held[first] = stored
        for other in others:
            del held[other]
    return list(held.values())


def quantized_bytes(
    component: ComponentShapes, choice: Choice, compute_dtype: str
) -> dict[str, int]:
    """Bytes of each quantized weight; projections that are fused first share one entry."""
    if choice.scheme == NONE or is_prequantized(component):
        return {}
    storage = storage_format(choice.scheme)
    int8 = choice.scheme in _INT8_PRECISIONS
    cautious = int8 or storage.spares_dtype_sensitive
    layers = (
        _fused(eligible_layers(component))
        if choice.fuse_qkv
        else {
            path: (tensor.shape[0], tensor.shape[1])
            for path, tensor in eligible_layers(component).items()
        }
    )
    kept_out = set(layers) - set(_unexcluded(layers, choice))
    return {
        path: storage.weight_bytes(*shape, COMPUTE_BYTES[compute_dtype])
        for path, shape in layers.items()
        if path not in kept_out
        and storage.fits(*shape)
        and not (cautious and is_dtype_sensitive(component, path, int8=int8))
    }


def is_prequantized(component: ComponentShapes) -> bool:
    """Whether the checkpoint itself is quantized, so that nothing can be chosen for it."""
    return "quantization_config" in component.config


def _loaded_bytes(
    component: ComponentShapes,
    name: str,
    tensor: TensorShape,
    compute_dtype: str,
    prequantized: bool,
) -> int:
    is_float = tensor.dtype in FLOATS or tensor.dtype.startswith(_FLOAT8)
    if prequantized or not is_float:
        return tensor.stored_bytes
    if is_kept_in_float32(component, name, compute_dtype):
        return tensor.elements * COMPUTE_BYTES["float32"]
    return tensor.elements * COMPUTE_BYTES[compute_dtype]


def _unexcluded(layers: Mapping[str, object], choice: Choice) -> list[str]:
    """An excluded projection keeps the whole fused layer that it becomes part of."""
    return [
        path
        for path in layers
        if len(without_excluded(path.split(" + "), choice.exclusions)) == path.count(" + ") + 1
    ]


def _fused(layers: Mapping[str, TensorShape]) -> dict[str, tuple[int, int]]:
    """Put the projections that share an input and a fused layer under one joined path."""
    merged: dict[str, tuple[int, int]] = {}
    key = {path: _fused_name(path, layers) for path in layers}
    for _, group in groupby(sorted(layers, key=lambda path: key[path]), key=lambda p: key[p]):
        paths = list(group)
        rows = sum(layers[path].shape[0] for path in paths)
        merged[" + ".join(paths)] = (rows, layers[paths[0]].shape[1])
    return merged


def _fused_name(path: str, layers: Mapping[str, TensorShape]) -> str:
    parent, dot, own = path.rpartition(".")
    for fused, originals in FUSED_FROM.items():
        siblings = [f"{parent}{dot}{name}" for name in originals]
        if own in originals and all(sibling in layers for sibling in siblings):
            widths = {layers[sibling].shape[1] for sibling in siblings}
            if len(widths) == 1:
                return f"{parent}{dot}{fused}"
    return path


def _computed_buffers(component: ComponentShapes) -> int:
    """Buffers that a model computes when it is made and keeps in float32, in bytes."""
    config = component.config
    if component.class_name == "PixArtTransformer2DModel":
        # diffusers models/embeddings.py PatchEmbed: sine table for (sample_size / patch_size)**2.
        side = integer(config, "sample_size", 128) // integer(config, "patch_size", 2)
        heads = integer(config, "num_attention_heads", 16)
        return side * side * heads * integer(config, "attention_head_dim", 72) * 4
    if component.class_name.startswith("CLIPText"):
        return integer(config, "max_position_embeddings", 77) * 8  # position_ids, int64
    return 0
