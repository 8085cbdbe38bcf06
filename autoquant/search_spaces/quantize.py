"""Carry out one component's choice on the loaded module, and prove that it was carried out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoquant.errors import BackendUnavailable, InputError, QuantizationMismatch
from autoquant.search_spaces.backends import backend
from autoquant.search_spaces.backends.base import MixedPrecisions, Recipe
from autoquant.search_spaces.exclusions import require_known, without_excluded
from autoquant.search_spaces.fuse import fuse_qkv, fused_skeleton, unfused_paths
from autoquant.search_spaces.linears import linears
from autoquant.search_spaces.scheme import NONE, Choice, Scheme
from autoquant.search_spaces.verification import (
    first_of,
    require_plain_rest,
    require_quantized,
    require_same_dtype,
    require_untouched,
    untouched,
    weights_of,
)

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class QuantizedLayers:
    """What became of one component.

    Attributes:
        layers: Exact paths of the quantized layers, in module order.
        schemes: The scheme of each of them.
        overridden: Those of another scheme than the component's, by scheme.
        bytes_before: Bytes that the module held before, in the dtype it was loaded in.
        bytes_after: Bytes that it holds now, scales included.
    """

    layers: tuple[str, ...]
    schemes: Mapping[str, str]
    overridden: Mapping[str, tuple[str, ...]]
    bytes_before: int
    bytes_after: int


def layers_to_quantize(module: nn.Module, choice: Choice) -> tuple[str, ...]:
    """Exact paths of the layers that ``choice`` quantizes; see ``layer_schemes``."""
    return tuple(layer_schemes(module, choice))


def layer_schemes(module: nn.Module, choice: Choice) -> dict[str, str]:
    """The scheme of each layer that ``choice`` quantizes, by exact path, in module order.

    ``module`` may be on the meta device, not fused yet or fused already; it is left as it is. Paths
    are fused names where it fuses: an exclusion of one projection keeps the whole fused layer that
    it becomes part of, and an override of one is that of the whole. A layer whose shape the scheme
    of its override does not take is left alone.

    Raises:
        InputError: An exclusion or override is no path of the module, the model cannot fuse, or
            projections that become one layer have different overrides.
        BackendUnavailable: The backend or precision is unknown, or takes no overrides.
        QuantizationMismatch: Nothing is left to quantize although the scheme quantizes, or nothing
            of an override.
    """
    fused_already = any(getattr(part, "fused_projections", False) for part in module.modules())
    target = fused_skeleton(module) if choice.fuse_qkv and not fused_already else module
    renamed = unfused_paths(target)
    known = {path for path, _ in module.named_modules() if path} | set(renamed)
    require_known(choice.exclusions, known)
    for override in choice.overrides:
        require_known(override.layers, known, "override")
    scheme = Scheme.parse(choice.scheme)
    if scheme.from_file and choice.fuse_qkv:
        raise InputError(f"{scheme} cannot be combined with fuse_qkv: its layers come quantized.")
    if choice.exclusions and not scheme.excludes:
        raise InputError(f"{scheme} cannot be combined with exclusions: its layers come quantized.")
    if not scheme.quantizes:
        return {}
    eligible = backend(scheme.backend).quantizable_layers(target, scheme.precision)
    exclusions = _renamed(choice.exclusions, renamed)
    if choice.overrides:
        eligible = _with_overrides(target, choice, renamed, eligible)
    layers = without_excluded(eligible, exclusions)
    if not layers:
        raise QuantizationMismatch(
            f"{choice.scheme} has nothing to quantize in this {type(module).__name__}: "
            f"{len(eligible)} layers are eligible and {len(choice.exclusions)} exclusions cover "
            "them all. Exclude less, or keep the component at 'none'."
        )
    schemes = dict.fromkeys(layers, choice.scheme)
    for override in choice.overrides:
        roots = _renamed(override.layers, renamed)
        covered = set(layers) - set(without_excluded(layers, roots))
        if not covered:
            raise QuantizationMismatch(
                f"{override.scheme} has nothing to quantize at {first_of(override.layers)} in this "
                f"{type(module).__name__}: no layer there has a shape that fits, or all of them "
                "are excluded. Leave the override out."
            )
        schemes.update(dict.fromkeys(covered, override.scheme))
    return schemes


def overridden_layers(schemes: Mapping[str, str], choice: Choice) -> dict[str, tuple[str, ...]]:
    """The layers of each override of ``choice``, of what ``layer_schemes`` gave for it."""
    return {
        override.scheme: tuple(path for path, own in schemes.items() if own == override.scheme)
        for override in choice.overrides
    }


def _with_overrides(
    target: nn.Module, choice: Choice, renamed: Mapping[str, str], eligible: tuple[str, ...]
) -> tuple[str, ...]:
    """The layers that either scheme takes where it holds, in module order."""
    owner = backend(Scheme.parse(choice.scheme).backend)
    if not isinstance(owner, MixedPrecisions):
        raise BackendUnavailable(
            f"The backend {owner.name!r} quantizes all layers of a component alike: leave the "
            "overrides out, or exclude those layers."
        )
    taken = set(eligible)
    overridden: dict[str, str] = {}
    for override in choice.overrides:
        able = set(owner.quantizable_layers(target, Scheme.parse(override.scheme).precision))
        every = tuple(linears(target))
        for path in set(every) - set(without_excluded(every, _renamed(override.layers, renamed))):
            if overridden.setdefault(path, override.scheme) != override.scheme:
                raise InputError(
                    f"{path} is one layer when fused, but its projections are given both "
                    f"{overridden[path]} and {override.scheme}: give them one scheme, or set "
                    "fuse_qkv=False."
                )
            taken = taken | {path} if path in able else taken - {path}
    return tuple(path for path in linears(target) if path in taken)


def _renamed(paths: Iterable[str], renamed: Mapping[str, str]) -> list[str]:
    return [renamed.get(path, path) for path in paths]


def apply_choice(module: nn.Module, choice: Choice, compute_dtype: torch.dtype) -> QuantizedLayers:
    """Fuse and quantize ``module`` in place as ``choice`` says, then verify layer by layer.

    Args:
        module: A freshly loaded component, not quantized yet.
        choice: What to do to it.
        compute_dtype: The dtype that the weights are compared with, like ``torch.bfloat16``.

    Raises:
        InputError: An exclusion is no path of the module, or the model cannot fuse.
        BackendUnavailable: The backend or precision is unknown.
        QuantizationMismatch: The layers that hold fewer bytes now are not the ones asked for, one
            is not stored in its precision, there is nothing to quantize, or the module reports
            another dtype than before.
    """
    from autoquant.storage import held_bytes

    bytes_before = held_bytes(module)
    schemes = layer_schemes(module, choice)
    layers = tuple(schemes)
    if choice.fuse_qkv:
        fuse_qkv(module)
    if layers:
        whole = brings_weights(choice)
        kept = {} if whole else untouched(module, layers)
        reported = getattr(module, "dtype", None)
        weights = weights_of(module, layers)
        for scheme in choice.schemes:
            recipe = _recipe(scheme)
            mine = tuple(path for path in layers if schemes[path] == scheme)
            if mine:
                recipe.function(module, mine, **recipe.arguments)
        require_quantized(module, weights, choice.scheme, compute_dtype)
        require_untouched(module, kept, choice.scheme)
        if choice.overrides:
            _require_planned_precisions(module, schemes)
        if whole:
            require_plain_rest(module, layers, choice.scheme, compute_dtype)
        require_same_dtype(module, reported, choice.scheme)
    overridden = overridden_layers(schemes, choice)
    return QuantizedLayers(layers, schemes, overridden, bytes_before, held_bytes(module))


def brings_weights(choice: Choice) -> bool:
    """Whether ``apply_choice`` is given a model without weights, on the meta device."""
    return choice.scheme != NONE and _recipe(choice.scheme).brings_weights


def _recipe(text: str) -> Recipe:
    scheme = Scheme.parse(text)
    return backend(scheme.backend).recipe(scheme.precision)


def _require_planned_precisions(module: nn.Module, schemes: Mapping[str, str]) -> None:
    """What each layer is stored in is what the plan says of it, not what it says of others."""
    for path, text in schemes.items():
        scheme = Scheme.parse(text)
        owner = backend(scheme.backend)
        assert isinstance(owner, MixedPrecisions)
        stored = owner.stored_precision(module.get_submodule(path))
        if stored != scheme.precision:
            raise QuantizationMismatch(
                f"{path} was to be stored as {scheme}, but it is "
                + (f"{scheme.backend}:{stored}." if stored else "none of the backend's precisions.")
            )
