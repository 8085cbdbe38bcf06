"""Prove that a module is quantized as it was asked to be: layer by layer, and as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from autoquant.errors import QuantizationMismatch
from autoquant.search_spaces.linears import dtype_sensitive, linears

if TYPE_CHECKING:
    import torch
    from torch import nn

_NAMED_IN_ERRORS = 5

Kept = dict[str, tuple["nn.Linear", "torch.Tensor", "torch.dtype"]]
"""The layers that must stay: their modules, weights and dtypes before."""


def untouched(module: nn.Module, layers: Iterable[str]) -> Kept:
    """Every linear layer but ``layers``, as it is now."""
    chosen = set(layers)
    return {
        path: (layer, layer.weight, layer.weight.dtype)
        for path, layer in linears(module).items()
        if path not in chosen
    }


def weights_of(module: nn.Module, layers: Iterable[str]) -> dict[str, int]:
    """How many weights each of ``layers`` has, told by its features before it is quantized."""
    weights = {}
    for path in layers:
        layer = module.get_submodule(path)
        assert isinstance(layer.in_features, int)
        assert isinstance(layer.out_features, int)
        weights[path] = layer.in_features * layer.out_features
    return weights


def require_quantized(
    module: nn.Module, weights: Mapping[str, int], scheme: str, compute_dtype: torch.dtype
) -> None:
    """Check that each layer of ``weights`` holds fewer bytes than in ``compute_dtype``.

    Raises:
        QuantizationMismatch: Some hold as many.
    """
    from autoquant.storage import weight_bytes

    after = dict(module.named_modules())
    missed = [
        path
        for path, count in weights.items()
        if weight_bytes(after[path]) >= count * compute_dtype.itemsize
    ]
    if missed:
        raise QuantizationMismatch(
            f"{scheme} was asked to quantize {len(weights)} layers, but {len(missed)} hold as many "
            f"bytes as in {compute_dtype}: {first_of(missed)}."
        )


def require_untouched(module: nn.Module, kept: Kept, scheme: str) -> None:
    """Check that the layers in ``kept`` are the modules and weights that they were.

    Raises:
        QuantizationMismatch: Some are not.
    """
    after = dict(module.named_modules())
    changed = [
        path
        for path, (layer, weight, dtype) in kept.items()
        if after.get(path) is not layer or layer.weight is not weight or weight.dtype != dtype
    ]
    if changed:
        raise QuantizationMismatch(
            f"{scheme} changed {len(changed)} layers that it was told to leave alone: "
            f"{first_of(changed)}."
        )


def require_plain_rest(
    module: nn.Module, layers: tuple[str, ...], scheme: str, compute_dtype: torch.dtype
) -> None:
    """Check that what a file brought beside ``layers`` is in the compute dtype, and complete.

    A class may ask its loader to keep some layers in float32, as T5 does.

    Raises:
        QuantizationMismatch: It is not.
    """
    import torch

    from autoquant.storage import owned_tensors

    chosen, spared = set(layers), dtype_sensitive(module).layers
    strange = [
        path
        for path, layer in linears(module).items()
        if path not in chosen
        and layer.weight.dtype != compute_dtype
        and not (path in spared and layer.weight.dtype == torch.float32)
    ] + [
        name
        for name, weight in module.named_parameters()
        # quanto's wrappers say meta of tensors that are there.
        if any(tensor.is_meta for tensor in owned_tensors(weight))
    ]
    if strange:
        raise QuantizationMismatch(
            f"{scheme} left {len(strange)} weights that are not in {compute_dtype}: "
            f"{first_of(strange)}."
        )


def require_same_dtype(module: nn.Module, reported: torch.dtype | None, scheme: str) -> None:
    """Check that the model reports its dtype as before: pipelines cast latents and prompts to it.

    Raises:
        QuantizationMismatch: It does not.
    """
    now = getattr(module, "dtype", None)
    if now != reported:
        raise QuantizationMismatch(
            f"{scheme} makes this {type(module).__name__} report {now} where it computes in "
            f"{reported}: pipelines would feed it the wrong dtype."
        )


def first_of(paths: Sequence[str]) -> str:
    """Some of ``paths`` by name, and how many more there are."""
    rest = len(paths) - _NAMED_IN_ERRORS
    return ", ".join(paths[:_NAMED_IN_ERRORS]) + (f" and {rest} more" if rest > 0 else "")
