"""The choices of a user's space file whose layers differ in precision."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import ValidationError

from autoquant.errors import InputError, QuantizationMismatch
from autoquant.search_spaces.exclusions import without_excluded
from autoquant.search_spaces.located_yaml import Place
from autoquant.search_spaces.quantize import layer_schemes
from autoquant.search_spaces.scheme import Choice, Override
from autoquant.search_spaces.space import ComponentSpace
from autoquant.search_spaces.space_file import OwnComponent, OwnMix, SpaceFile

if TYPE_CHECKING:
    from torch import nn


def mixed_choices(
    file: SpaceFile, name: str, own: OwnComponent, module: nn.Module, known: ComponentSpace
) -> tuple[tuple[Choice, ...], list[str]]:
    """The mixed choices that ``own`` names, and a line for each that cannot be.

    Args:
        file: Where they are from.
        name: The component.
        own: What the file says of it; its patterns match something.
        module: The component; it may be on the meta device.
        known: What is open to it otherwise.
    """
    choices: dict[Choice, None] = {}
    faults = []
    for number, mix in enumerate(own.mixed):
        place: Place = ("components", name, "mixed", number)
        found = []
        for pattern in mix.overrides:
            fault = _why_impossible(mix, [pattern], module, (False,))
            if fault is not None:
                found.append(file.fault((*place, "overrides", pattern), fault))
        if not found:
            fault = _why_impossible(mix, mix.overrides, module, known.fuse_qkv)
            found += [] if fault is None else [file.fault(place, fault)]
        if not found:
            choices[_choice(mix, mix.overrides, module)] = None
        faults += found
    return tuple(choices), faults


def _why_impossible(
    mix: OwnMix, patterns: Iterable[str], module: nn.Module, fuse_qkv: Iterable[bool]
) -> str | None:
    """What is wrong with ``mix`` if it overrides by ``patterns`` alone; None if nothing is."""
    try:
        choice = _choice(mix, patterns, module)
        for fused in fuse_qkv:
            layer_schemes(module, choice.model_copy(update={"fuse_qkv": fused}))
    except ValidationError as error:
        return str(error.errors()[0]["msg"]).removeprefix("Value error, ") + "."
    except (InputError, QuantizationMismatch) as error:
        return str(error)
    return None


def _choice(mix: OwnMix, patterns: Iterable[str], module: nn.Module) -> Choice:
    matching: dict[str, list[str]] = {}
    for pattern in patterns:
        matching.setdefault(mix.overrides[pattern], []).append(pattern)
    return Choice(
        scheme=mix.scheme,
        exclusions=outermost(mix.exclusions, module),
        overrides=tuple(
            Override(scheme=scheme, layers=outermost(alike, module))
            for scheme, alike in matching.items()
        ),
    )


def outermost(patterns: Iterable[str], module: nn.Module) -> tuple[str, ...]:
    """The modules whose paths one of ``patterns`` matches, without those below another, sorted."""
    known = tuple(patterns)
    matched = [
        path
        for path, _ in module.named_modules()
        if path and any(re.fullmatch(pattern, path) for pattern in known)
    ]
    return tuple(
        sorted(
            path
            for path in matched
            if without_excluded([path], [other for other in matched if other != path])
        )
    )
