"""Candidates as the parameters of an Optuna trial, and back."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

from autoquant.planner.candidate import Candidate, Runtime
from autoquant.search_spaces.scheme import NONE, Choice
from autoquant.search_spaces.space import ComponentSpace, SearchSpace

ParameterValue = str | bool

# Names of the exclusion sets in a study: the first set of a component excludes nothing.
_EXCLUSION_NAMES = ("nothing", "sensitive")


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
            index = component.exclusions.index(choice.exclusions)
            parameters[f"{name}.exclusions"] = exclusion_name(index)
    return parameters


def unquantized(space: SearchSpace, runtime: Runtime) -> Candidate:
    """The candidate that changes nothing."""
    return Candidate(components={name: Choice() for name in space.components}, runtime=runtime)


def uniform_candidates(space: SearchSpace, runtime: Runtime) -> Iterator[Candidate]:
    """Each scheme on every component that has it: the ladder that a person would try first."""
    schemes = dict.fromkeys(
        scheme for component in space.components.values() for scheme in component.schemes
    )
    for scheme in schemes:
        if scheme != NONE:
            yield Candidate(
                components={
                    name: Choice(scheme=scheme) if scheme in component.schemes else Choice()
                    for name, component in space.components.items()
                },
                runtime=runtime,
            )


def number_of_candidates(space: SearchSpace) -> int:
    """How many different candidates the space holds."""
    return prod(map(_number_of_choices, space.components.values()))


def exclusion_name(index: int) -> str:
    """The name of a component's ``index``-th exclusion set in a study."""
    return _EXCLUSION_NAMES[index] if index < len(_EXCLUSION_NAMES) else f"set {index}"


def _suggest_choice(trial: Any, name: str, component: ComponentSpace) -> Choice:
    scheme = trial.suggest_categorical(f"{name}.scheme", list(component.schemes))
    fuse_qkv = component.fuse_qkv[0]
    if len(component.fuse_qkv) > 1:
        fuse_qkv = trial.suggest_categorical(f"{name}.fuse_qkv", list(component.fuse_qkv))
    exclusions: tuple[str, ...] = ()
    if scheme != NONE:
        names = [exclusion_name(index) for index in range(len(component.exclusions))]
        chosen = names[0]
        if len(names) > 1:
            chosen = trial.suggest_categorical(f"{name}.exclusions", names)
        exclusions = component.exclusions[names.index(chosen)]
    return Choice(scheme=scheme, exclusions=exclusions, fuse_qkv=fuse_qkv)


def _number_of_choices(component: ComponentSpace) -> int:
    quantizing = sum(scheme != NONE for scheme in component.schemes)
    plain = len(component.schemes) - quantizing
    return (plain + quantizing * len(component.exclusions)) * len(component.fuse_qkv)
