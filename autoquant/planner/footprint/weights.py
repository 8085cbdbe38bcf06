"""Bytes that a component holds once it is loaded and its choice is carried out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import groupby
from types import MappingProxyType

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
_WEIGHT = ".weight"
JOINT = " + "
_CROSS_ATTENTION = "attn2"  # diffusers' name in every model that has both kinds
# torchao and quanto weights report the compute dtype, so nothing that reads it is misled.
_INT8_PRECISIONS = frozenset({"bitsandbytes:int8"})


@lru_cache(maxsize=64)
def tensor_bytes(component: ComponentShapes, compute_dtype: str) -> Mapping[str, int]:
    """Bytes of each tensor when the component is loaded unquantized, tied copies left out."""
    ignored = tied_names(component)
    prequantized = is_prequantized(component)
    return MappingProxyType(
        {
            name: _loaded_bytes(component, name, tensor, compute_dtype, prequantized)
            for name, tensor in component.tensors.items()
            if name not in ignored
        }
    )


@lru_cache(maxsize=4096)
def component_bytes(component: ComponentShapes, choice: Choice, compute_dtype: str) -> int:
    """Bytes of ``component`` under ``choice``, buffers that no file stores included.

    Raises:
        BackendUnavailable: The storage of the scheme is not known.
    """
    held = held_parts(component, choice, compute_dtype)
    return sum(map(sum, held.values())) + _computed_buffers(component)


@lru_cache(maxsize=32)  # of a large model each holds thousands of entries
def held_parts(
    component: ComponentShapes, choice: Choice, compute_dtype: str
) -> Mapping[str, tuple[int, ...]]:
    """Bytes of each tensor under ``choice`` by the name it was stored under.

    A quantized weight is followed by its scales. Projections that are fused share the entry of the
    first.

    Raises:
        BackendUnavailable: The storage of the scheme is not known.
    """
    held: dict[str, tuple[int, ...]] = {
        name: (size,) for name, size in tensor_bytes(component, compute_dtype).items()
    }
    for path, stored in quantized_parts(component, choice, compute_dtype).items():
        storage = storage_format(scheme_of(path, choice))
        first, *others = path.split(JOINT)
        scalars = (COMPUTE_BYTES[compute_dtype],) * storage.scalars
        held[f"{first}{_WEIGHT}"] = (*stored, *scalars)
        for other in others:
            del held[f"{other}{_WEIGHT}"]
        if storage.casts_bias:
            biases = (f"{part}.bias" for part in (first, *others))
            held.update(
                {bias: (component.tensors[bias].elements,) for bias in biases if bias in held}
            )
    return MappingProxyType(held)


def kept_originals_bytes(component: ComponentShapes, choice: Choice, compute_dtype: str) -> int:
    """Bytes that diffusers' own ``fuse_qkv_projections()`` adds: it keeps what it has fused.

    The weights are meant; a search drops the originals (search_spaces/fuse.py), so this is for
    comparing with measurements that others took.
    """
    fused = choice.model_copy(update={"fuse_qkv": True})
    quantized = quantized_parts(component, fused, compute_dtype)
    if quantized:
        return sum(sum(stored) for path, stored in quantized.items() if JOINT in path)
    shapes = _fused(eligible_layers(component))
    itemsize = COMPUTE_BYTES[compute_dtype]
    return sum(
        rows * columns * itemsize for path, (rows, columns) in shapes.items() if JOINT in path
    )


@lru_cache(maxsize=1024)
def quantized_parts(
    component: ComponentShapes, choice: Choice, compute_dtype: str
) -> Mapping[str, tuple[int, ...]]:
    """Bytes of each quantized weight and its scales; fused projections share one entry."""
    if choice.scheme == NONE or is_prequantized(component):
        return {}
    layers = (
        _fused(eligible_layers(component))
        if choice.fuse_qkv
        else {
            path: (tensor.shape[0], tensor.shape[1])
            for path, tensor in eligible_layers(component).items()
        }
    )
    return {
        path: storage_format(scheme_of(path, choice)).parts(
            *layers[path], COMPUTE_BYTES[compute_dtype]
        )
        for path in _unexcluded(layers, choice)
        if _takes(scheme_of(path, choice), component, path, layers[path])
    }


def scheme_of(path: str, choice: Choice) -> str:
    """The scheme of one layer; projections that are fused have that of any which is overridden."""
    if not choice.overrides:
        return choice.scheme
    schemes = (choice.scheme_at(part) for part in path.split(JOINT))
    return next((scheme for scheme in schemes if scheme != choice.scheme), choice.scheme)


def _takes(scheme: str, component: ComponentShapes, path: str, shape: tuple[int, int]) -> bool:
    storage = storage_format(scheme)
    int8 = scheme in _INT8_PRECISIONS
    cautious = int8 or storage.spares_dtype_sensitive
    return storage.fits(*shape) and not (
        cautious and is_dtype_sensitive(component, path, int8=int8)
    )


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
        if len(without_excluded(path.split(JOINT), choice.exclusions)) == path.count(JOINT) + 1
    ]


def _fused(layers: Mapping[str, TensorShape]) -> dict[str, tuple[int, int]]:
    """Put the projections that share an input and a fused layer under one joined path."""
    merged: dict[str, tuple[int, int]] = {}
    key = {path: _fused_name(path, layers) for path in layers}
    for _, group in groupby(sorted(layers, key=lambda path: key[path]), key=lambda p: key[p]):
        paths = list(group)
        rows = sum(layers[path].shape[0] for path in paths)
        merged[JOINT.join(paths)] = (rows, layers[paths[0]].shape[1])
    return merged


def _fused_name(path: str, layers: Mapping[str, TensorShape]) -> str:
    """The fused layer that the one at ``path`` becomes part of, or ``path`` itself.

    Self-attention fuses query, key and value; cross-attention, whose query has another source, key
    and value alone (diffusers models/attention.py, fuse_projections).
    """
    parent, dot, own = path.rpartition(".")
    crosses = parent.rpartition(".")[2] == _CROSS_ATTENTION
    for fused, originals in FUSED_FROM.items():
        siblings = [f"{parent}{dot}{name}" for name in originals]
        if own not in originals or any(sibling not in layers for sibling in siblings):
            continue
        if len({layers[sibling].shape[1] for sibling in siblings}) == 1 and not (
            crosses and fused == "to_qkv"
        ):
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
