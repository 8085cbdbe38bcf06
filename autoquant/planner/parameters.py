"""Candidates as the parameters of an Optuna trial, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import product
from math import prod
from typing import Any

from autoquant.planner.candidate import Candidate, Runtime
from autoquant.search_spaces.scheme import NONE, Choice, Scheme
from autoquant.search_spaces.space import ComponentSpace, SearchSpace

ParameterValue = str | bool


def suggest(trial: Any, space: SearchSpace, runtime: Runtime) -> Candidate:
    """Ask an Optuna trial for a candidate.

    Exclusions are only asked for where something is quantized.
    """
    return Candidate(
        components={
            name: _suggest_choice(trial, name, component)
            for name, component in space.components.items()
        },
        runtime=runtime,
    )


def parameters_of(candidate: Candidate, space: SearchSpace) -> dict[str, ParameterValue]:
    """The parameters from which ``suggest`` makes ``candidate``."""
    parameters: dict[str, ParameterValue] = {}
    for name, component in space.components.items():
        choice = candidate.components[name]
        parameters[f"{name}.scheme"] = choice.scheme
        if len(component.fuse_qkv) > 1:
            parameters[f"{name}.fuse_qkv"] = choice.fuse_qkv
        if choice.scheme != NONE and len(component.exclusions) > 1:
            parameters[f"{name}.exclusions"] = _exclusions_name(choice.exclusions)
    return parameters


def unquantized(space: SearchSpace, runtime: Runtime) -> Candidate:
    """The candidate that changes nothing."""
    return Candidate(components={name: Choice() for name in space.components}, runtime=runtime)


def one_a_width(schemes: Iterable[str]) -> tuple[str, ...]:
    """The first scheme of each width; the width is the first number in a precision's name."""
    first: dict[str, str] = {}
    for scheme in schemes:
        precision = Scheme.parse(scheme).precision
        number = re.search(r"\d+", precision)
        first.setdefault(number.group() if number else precision, scheme)
    return tuple(first.values())


def uniform_candidates(space: SearchSpace, runtime: Runtime) -> Iterator[Candidate]:
    """One scheme of each width on every component: the ladder that a person would try first."""
    schemes: Iterable[str] = dict.fromkeys(
        scheme
        for component in space.components.values()
        for scheme in component.schemes
        if scheme != NONE
    )
    for scheme in one_a_width(schemes):
        yield Candidate(
            components={
                name: component.plainest(scheme) for name, component in space.components.items()
            },
            runtime=runtime,
        )


def number_of_candidates(space: SearchSpace) -> int:
    """How many different candidates the space holds."""
    return prod(map(_number_of_choices, space.components.values()))


def neighbours(candidate: Candidate, space: SearchSpace) -> Iterator[Candidate]:
    """Every candidate that differs from ``candidate`` in the choice for one component."""
    for name, component in space.components.items():
        for choice in _choices(component):
            if choice != candidate.components[name]:
                yield candidate.model_copy(
                    update={"components": {**candidate.components, name: choice}}
                )


def _suggest_choice(trial: Any, name: str, component: ComponentSpace) -> Choice:
    scheme = trial.suggest_categorical(f"{name}.scheme", list(component.schemes))
    fuse_qkv = component.fuse_qkv[0]
    if len(component.fuse_qkv) > 1:
        fuse_qkv = trial.suggest_categorical(f"{name}.fuse_qkv", list(component.fuse_qkv))
    exclusions: tuple[str, ...] = ()
    if scheme != NONE:
        names = [_exclusions_name(paths) for paths in component.exclusions]
        chosen = names[0]
        if len(names) > 1:
            chosen = trial.suggest_categorical(f"{name}.exclusions", names)
        exclusions = component.smallest_equal(scheme, names.index(chosen))
    return Choice(scheme=scheme, exclusions=exclusions, fuse_qkv=fuse_qkv)


def _choices(component: ComponentSpace) -> Iterator[Choice]:
    for scheme, fuse_qkv in product(component.schemes, component.fuse_qkv):
        for exclusions in component.distinct_exclusions(scheme) if scheme != NONE else ((),):
            yield Choice(scheme=scheme, exclusions=exclusions, fuse_qkv=fuse_qkv)


def _number_of_choices(component: ComponentSpace) -> int:
    return sum(1 for _ in _choices(component))


def _exclusions_name(paths: tuple[str, ...]) -> str:
    """Short, and different for different sets."""
    return f"{len(paths)} modules, {sha256(' '.join(paths).encode()).hexdigest()[:8]}"
