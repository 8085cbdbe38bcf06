"""Open the space that a user's file describes, for the pipeline and the device at hand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from autoquant.errors import BackendUnavailable
from autoquant.search_spaces.backends import backend
from autoquant.search_spaces.located_yaml import Place
from autoquant.search_spaces.own_mixes import mixed_choices, outermost
from autoquant.search_spaces.scheme import NONE, Scheme
from autoquant.search_spaces.space import (
    EVERY_SCHEME,
    ComponentSpace,
    SearchSpace,
    distinct,
    open_space,
)
from autoquant.search_spaces.space_file import OwnComponent, SpaceFile, refuse
from autoquant.search_spaces.usable import usable_schemes

if TYPE_CHECKING:
    from torch import nn


def open_space_file(
    file: SpaceFile,
    pipeline_class_name: str,
    modules: Mapping[str, nn.Module],
    device_type: str,
    backends: tuple[str, ...] | None = None,
    **conditions: Any,
) -> SearchSpace:
    """``open_space`` with what ``file`` says; ``modules`` may be on the meta device.

    Raises:
        SpaceFileError: A component, scheme or pattern does not fit the pipeline or the device; one
            line for each.
    """
    space = open_space(pipeline_class_name, modules, device_type, backends, **conditions)
    named = _named_schemes(file)
    unusable = _unusable(named, device_type, conditions)
    usable = [scheme for scheme in named if scheme not in unusable]
    wider = open_space(pipeline_class_name, modules, device_type, usable, **conditions)
    faults: list[str] = []
    components = dict(space.components)
    for name, own in file.contents.components.items():
        place: Place = ("components", name)
        if name not in space.components:
            faults.append(file.fault(place, _why_absent(name, space)))
            continue
        found = [
            *_unfit_schemes(file, name, own, wider, unusable),
            *_unfit_patterns(file, name, own, modules[name]),
            *_unfit_fusing(file, name, own, components[name]),
        ]
        if not found:
            narrowed = _narrowed(own, components[name], modules[name])
            mixed, found = mixed_choices(file, name, own, modules[name], narrowed)
            components[name] = narrowed.model_copy(update={"mixed": mixed})
        faults += found
    refuse(faults)
    return space.model_copy(update={"components": components})


def _named_schemes(file: SpaceFile) -> list[str]:
    return [scheme for scheme in file.contents.schemes if scheme != NONE]


def _unusable(schemes: list[str], device_type: str, conditions: dict[str, Any]) -> dict[str, str]:
    reasons = {}
    for scheme in schemes:
        try:
            usable_schemes(device_type, [scheme], **conditions)
        except BackendUnavailable as error:
            reasons[scheme] = str(error)
    return reasons


def _why_absent(name: str, space: SearchSpace) -> str:
    for struck in space.struck:
        if struck.component == name and struck.scheme == EVERY_SCHEME:
            return f"{name} is not searched: {struck.reason}."
    return f"the pipeline has no component {name!r} to decide on; it has " + (
        f"{', '.join(space.components)}."
    )


def _unfit_schemes(
    file: SpaceFile, name: str, own: OwnComponent, wider: SearchSpace, unusable: dict[str, str]
) -> Iterator[str]:
    for within, scheme in own.named_schemes.items():
        place: Place = ("components", name, *within)
        if scheme in unusable:
            yield file.fault(place, unusable[scheme])
        elif scheme != NONE and scheme not in wider.components[name].schemes:
            reasons = [
                struck.reason
                for struck in wider.struck
                if (struck.component, struck.scheme) == (name, scheme)
            ]
            yield file.fault(place, f"{scheme} cannot be used for {name}: {'; '.join(reasons)}.")


def _unfit_patterns(
    file: SpaceFile, name: str, own: OwnComponent, module: nn.Module
) -> Iterator[str]:
    paths = [path for path, _ in module.named_modules() if path]
    for within, pattern in _patterns(own):
        if not any(re.fullmatch(pattern, path) for path in paths):
            place: Place = ("components", name, *within)
            yield file.fault(place, f"{pattern!r} matches no module of {name}.")


def _patterns(own: OwnComponent) -> Iterator[tuple[Place, str]]:
    for number, patterns in enumerate(own.exclusions or ()):
        for position, pattern in enumerate(patterns):
            yield ("exclusions", number, position), pattern
    for number, mix in enumerate(own.mixed):
        for pattern in mix.overrides:
            yield ("mixed", number, "overrides", pattern), pattern
        for position, pattern in enumerate(mix.exclusions):
            yield ("mixed", number, "exclusions", position), pattern


def _unfit_fusing(
    file: SpaceFile, name: str, own: OwnComponent, known: ComponentSpace
) -> Iterator[str]:
    if own.fuse_qkv and True in own.fuse_qkv and True not in known.fuse_qkv:
        place: Place = ("components", name, "fuse_qkv")
        yield file.fault(place, f"the projections of {name} cannot be fused.")


def _narrowed(own: OwnComponent, known: ComponentSpace, module: nn.Module) -> ComponentSpace:
    schemes = known.schemes if own.schemes is None else tuple(dict.fromkeys((NONE, *own.schemes)))
    sets = known.exclusions
    if own.exclusions is not None:
        sets = tuple(outermost(patterns, module) for patterns in own.exclusions)
    layers = {}
    for text in schemes:
        if text != NONE:
            scheme = Scheme.parse(text)
            owner = backend(scheme.backend)
            layers[text] = owner.quantizable_layers(module, scheme.precision)
    exclusions, same_as = distinct(tuple(dict.fromkeys(sets)), layers)
    fuse_qkv = known.fuse_qkv
    if own.fuse_qkv is not None:
        fuse_qkv = tuple(dict.fromkeys((False, *own.fuse_qkv)))
    return ComponentSpace(
        schemes=schemes, exclusions=exclusions, fuse_qkv=fuse_qkv, same_as=same_as
    )
