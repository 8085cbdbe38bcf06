"""Carry out one component's choice on the loaded module, and prove that it was carried out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoquant.errors import InputError, QuantizationMismatch
from autoquant.search_spaces.backends import backend
from autoquant.search_spaces.backends.base import Recipe
from autoquant.search_spaces.exclusions import require_known, without_excluded
from autoquant.search_spaces.fuse import fuse_qkv, fused_skeleton, unfused_paths
from autoquant.search_spaces.linears import dtype_sensitive, linears
from autoquant.search_spaces.scheme import NONE, Choice, Scheme

if TYPE_CHECKING:
    import torch
    from torch import nn

_NAMED_IN_ERRORS = 5


@dataclass(frozen=True)
class QuantizedLayers:
    """What became of one component.

    Attributes:
        layers: Exact paths of the quantized layers, in module order.
        bytes_before: Bytes that the module held before, in the dtype it was loaded in.
        bytes_after: Bytes that it holds now, scales included.
    """

    layers: tuple[str, ...]
    bytes_before: int
    bytes_after: int


def layers_to_quantize(module: nn.Module, choice: Choice) -> tuple[str, ...]:
    """Exact paths of the layers that ``choice`` quantizes, fused names where it fuses.

    ``module`` may be on the meta device, not fused yet or fused already; it is left as it is. An
    exclusion of one projection keeps the whole fused layer that it becomes part of.

    Raises:
        InputError: An exclusion is no path of the module, or the model cannot fuse.
        BackendUnavailable: The backend or precision is unknown.
        QuantizationMismatch: Nothing is left to quantize although the scheme quantizes.
    """
    fused_already = any(getattr(part, "fused_projections", False) for part in module.modules())
    target = fused_skeleton(module) if choice.fuse_qkv and not fused_already else module
    renamed = unfused_paths(target)
    known = {path for path, _ in module.named_modules() if path} | set(renamed)
    require_known(choice.exclusions, known)
    scheme = Scheme.parse(choice.scheme)
    if scheme.from_file and choice.fuse_qkv:
        raise InputError(f"{scheme} cannot be combined with fuse_qkv: its layers come quantized.")
    if choice.exclusions and not scheme.excludes:
        raise InputError(f"{scheme} cannot be combined with exclusions: its layers come quantized.")
    if not scheme.quantizes:
        return ()
    eligible = backend(scheme.backend).quantizable_layers(target, scheme.precision)
    exclusions = [renamed.get(path, path) for path in choice.exclusions]
    layers = without_excluded(eligible, exclusions)
    if not layers:
        raise QuantizationMismatch(
            f"{choice.scheme} has nothing to quantize in this {type(module).__name__}: "
            f"{len(eligible)} layers are eligible and {len(choice.exclusions)} exclusions cover "
            "them all. Exclude less, or keep the component at 'none'."
        )
    return layers


def apply_choice(module: nn.Module, choice: Choice, compute_dtype: torch.dtype) -> QuantizedLayers:
    """Fuse and quantize ``module`` in place as ``choice`` says, then verify layer by layer.

    Args:
        module: A freshly loaded component, not quantized yet.
        choice: What to do to it.
        compute_dtype: The dtype that the weights are compared with, like ``torch.bfloat16``.

    Raises:
        InputError: An exclusion is no path of the module, or the model cannot fuse.
        BackendUnavailable: The backend or precision is unknown.
        QuantizationMismatch: The layers that hold fewer bytes now are not the ones asked for, there
            is nothing to quantize, or the module reports another dtype than before.
    """
    from autoquant.storage import held_bytes

    bytes_before = held_bytes(module)
    layers = layers_to_quantize(module, choice)
    if choice.fuse_qkv:
        fuse_qkv(module)
    if layers:
        recipe = _recipe(choice)
        kept = {} if recipe.brings_weights else _untouched(module, layers)
        reported = getattr(module, "dtype", None)
        weights = {path: _elements(module.get_submodule(path)) for path in layers}
        recipe.function(module, layers, **recipe.arguments)
        _verify(module, weights, kept, choice.scheme, compute_dtype)
        if recipe.brings_weights:
            _require_plain_rest(module, layers, choice.scheme, compute_dtype)
        _require_same_dtype(module, reported, choice.scheme)
    return QuantizedLayers(layers, bytes_before, held_bytes(module))


def brings_weights(choice: Choice) -> bool:
    """Whether ``apply_choice`` is given a model without weights, on the meta device."""
    return choice.scheme != NONE and _recipe(choice).brings_weights


def _recipe(choice: Choice) -> Recipe:
    scheme = Scheme.parse(choice.scheme)
    return backend(scheme.backend).recipe(scheme.precision)


_Kept = dict[str, tuple["nn.Linear", "torch.Tensor", "torch.dtype"]]


def _untouched(module: nn.Module, layers: Iterable[str]) -> _Kept:
    chosen = set(layers)
    return {
        path: (layer, layer.weight, layer.weight.dtype)
        for path, layer in linears(module).items()
        if path not in chosen
    }


def _verify(
    module: nn.Module,
    layers: Mapping[str, int],
    kept: _Kept,
    scheme: str,
    compute_dtype: torch.dtype,
) -> None:
    from autoquant.storage import weight_bytes

    after = dict(module.named_modules())
    missed = [
        path
        for path, weights in layers.items()
        if weight_bytes(after[path]) >= weights * compute_dtype.itemsize
    ]
    if missed:
        raise QuantizationMismatch(
            f"{scheme} was asked to quantize {len(layers)} layers, but {len(missed)} hold as many "
            f"bytes as in {compute_dtype}: {_first(missed)}."
        )
    changed = [
        path
        for path, (layer, weight, dtype) in kept.items()
        if after.get(path) is not layer or layer.weight is not weight or weight.dtype != dtype
    ]
    if changed:
        raise QuantizationMismatch(
            f"{scheme} changed {len(changed)} layers that it was told to leave alone: "
            f"{_first(changed)}."
        )


def _require_plain_rest(
    module: nn.Module, layers: tuple[str, ...], scheme: str, compute_dtype: torch.dtype
) -> None:
    """What a file brought beside ``layers`` is in the compute dtype, and complete.

    A class may ask its loader to keep some layers in float32, as T5 does.
    """
    import torch

    from autoquant.storage import owned_tensors

    spared = {*layers, *dtype_sensitive(module).layers}
    strange = [
        path
        for path, layer in linears(module).items()
        if path not in layers
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
            f"{_first(strange)}."
        )


def _require_same_dtype(module: nn.Module, reported: torch.dtype | None, scheme: str) -> None:
    """Pipelines cast latents and prompts to the dtype that a model reports."""
    now = getattr(module, "dtype", None)
    if now != reported:
        raise QuantizationMismatch(
            f"{scheme} makes this {type(module).__name__} report {now} where it computes in "
            f"{reported}: pipelines would feed it the wrong dtype."
        )


def _elements(layer: nn.Module) -> int:
    in_features, out_features = layer.in_features, layer.out_features
    assert isinstance(in_features, int)
    assert isinstance(out_features, int)
    return in_features * out_features


def _first(paths: list[str]) -> str:
    rest = len(paths) - _NAMED_IN_ERRORS
    return ", ".join(paths[:_NAMED_IN_ERRORS]) + (f" and {rest} more" if rest > 0 else "")
