"""Candidates as the parameters of an Optuna trial, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import product
from math import prod
from typing import Any

from autoquant.planner.candidate import Candidate, Runtime
from autoquant.search_spaces.levers import CONFLICTING_LEVERS
from autoquant.search_spaces.scheme import NONE, Choice, Override, Scheme
from autoquant.search_spaces.space import ComponentSpace, SearchSpace

ParameterValue = str | bool

PIPELINE = "pipeline"
"""What stands before a lever where a component's name stands before what is chosen for it."""


def suggest(trial: Any, space: SearchSpace, runtime: Runtime) -> Candidate:
    """Ask an Optuna trial for a candidate.

    Exclusions are only asked for where something is quantized.
    """
    return Candidate(
        components={
            name: _suggest_choice(trial, name, component)
            for name, component in space.components.items()
        },
        runtime=runtime.model_copy(
            update={
                lever: trial.suggest_categorical(f"{PIPELINE}.{lever}", list(values))
                for lever, values in _open_levers(space).items()
            }
        ),
    )


def parameters_of(candidate: Candidate, space: SearchSpace) -> dict[str, ParameterValue]:
    """The parameters from which ``suggest`` makes ``candidate``."""
    parameters: dict[str, ParameterValue] = {}
    for name, component in space.components.items():
        choice = candidate.components[name]
        parameters[f"{name}.scheme"] = choice.scheme
        if len(component.fuse_qkv) > 1:
            parameters[f"{name}.fuse_qkv"] = choice.fuse_qkv
        if choice.scheme != NONE and len(_exclusions_names(component)) > 1:
            parameters[_exclusions_parameter(name, component)] = _exclusions_name(
                choice.exclusions, choice.overrides
            )
    for lever in _open_levers(space):
        parameters[f"{PIPELINE}.{lever}"] = getattr(candidate.runtime, lever)
    return parameters


def refusal(candidate: Candidate, space: SearchSpace) -> str | None:
    """Why the compatibility table forbids ``candidate`` as a whole; None if it does not."""
    for name, choice in candidate.components.items():
        for lever in CONFLICTING_LEVERS:
            value = getattr(candidate.runtime, lever)
            reason = space.why_refused(name, choice, lever, value)
            if reason is not None:
                return f"{name}: {' and '.join(choice.schemes)} with {lever} {value}: {reason}"
    return None


def is_in_space(candidate: Candidate, space: SearchSpace) -> bool:
    """Whether ``suggest`` can make ``candidate``."""
    from optuna.trial import FixedTrial

    try:
        made = suggest(FixedTrial(parameters_of(candidate, space)), space, candidate.runtime)
    except (KeyError, ValueError):
        return False
    return made == candidate


def unquantized(space: SearchSpace, runtime: Runtime) -> Candidate:
    """The candidate that changes nothing."""
    return Candidate(components={name: Choice() for name in space.components}, runtime=runtime)


def one_a_width(schemes: Iterable[str]) -> tuple[str, ...]:
    """The first scheme of each width; the width is the first number in a precision's name."""
    first: dict[str, str] = {}
    for scheme in schemes:
        parsed = Scheme.parse(scheme)
        first.setdefault(str(parsed.width or parsed.precision), scheme)
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


def usual_candidates(space: SearchSpace, runtime: Runtime) -> Iterator[Candidate]:
    """What a person would try: a scheme of each width everywhere, and on one component alone."""
    yield from uniform_candidates(space, runtime)
    reference = unquantized(space, runtime)
    for name, component in space.components.items():
        for scheme in one_a_width(s for s in component.schemes if s != NONE):
            changed = {**reference.components, name: component.plainest(scheme)}
            yield reference.model_copy(update={"components": changed})


def number_of_candidates(space: SearchSpace) -> int:
    """How many different candidates the space holds that the compatibility table allows."""
    return sum(
        prod(
            sum(
                1
                for choice in choices(component)
                if not any(
                    space.why_refused(name, choice, lever, getattr(runtime, lever))
                    for lever in CONFLICTING_LEVERS
                )
            )
            for name, component in space.components.items()
        )
        for runtime in runtimes(space, Runtime())
    )


def runtimes(space: SearchSpace, runtime: Runtime) -> Iterator[Runtime]:
    """Every combination of the open levers; the others are as in ``runtime``."""
    levers = _open_levers(space)
    for values in product(*levers.values()):
        yield runtime.model_copy(update=dict(zip(levers, values, strict=True)))


def neighbours(candidate: Candidate, space: SearchSpace) -> Iterator[Candidate]:
    """Every allowed candidate that differs in the choice for one component, or in one lever."""
    return (other for other in _neighbours(candidate, space) if refusal(other, space) is None)


def with_one_lever(candidate: Candidate, space: SearchSpace) -> Iterator[Candidate]:
    """Every allowed candidate that differs from ``candidate`` in one lever."""
    for lever, values in _open_levers(space).items():
        for value in values:
            if value != getattr(candidate.runtime, lever):
                runtime = candidate.runtime.model_copy(update={lever: value})
                other = candidate.model_copy(update={"runtime": runtime})
                if refusal(other, space) is None:
                    yield other


def _neighbours(candidate: Candidate, space: SearchSpace) -> Iterator[Candidate]:
    for name, component in space.components.items():
        for choice in choices(component):
            if choice != candidate.components[name]:
                yield candidate.model_copy(
                    update={"components": {**candidate.components, name: choice}}
                )
    yield from with_one_lever(candidate, space)


def _open_levers(space: SearchSpace) -> dict[str, tuple[ParameterValue, ...]]:
    levers = {name: getattr(space.levers, name) for name in type(space.levers).model_fields}
    return {name: values for name, values in levers.items() if len(values) > 1}


def _suggest_choice(trial: Any, name: str, component: ComponentSpace) -> Choice:
    scheme = trial.suggest_categorical(f"{name}.scheme", list(component.schemes))
    fuse_qkv = component.fuse_qkv[0]
    if len(component.fuse_qkv) > 1:
        fuse_qkv = trial.suggest_categorical(f"{name}.fuse_qkv", list(component.fuse_qkv))
    fuse_qkv = fuse_qkv and component.may_fuse(scheme)
    if scheme == NONE:
        return Choice(fuse_qkv=fuse_qkv)
    names = _exclusions_names(component)
    place = 0
    if len(names) > 1:
        chosen = trial.suggest_categorical(_exclusions_parameter(name, component), names)
        place = names.index(chosen)
    if place >= len(component.exclusions):
        mixed = component.mixed[place - len(component.exclusions)]
        if mixed.scheme == scheme:
            return mixed.model_copy(update={"fuse_qkv": fuse_qkv})
        place = 0
    exclusions = component.smallest_equal(scheme, place)
    return Choice(scheme=scheme, exclusions=exclusions, fuse_qkv=fuse_qkv)


def choices(component: ComponentSpace) -> Iterator[Choice]:
    """Every choice that ``component`` offers, once."""
    for scheme, fuse_qkv in product(component.schemes, component.fuse_qkv):
        if fuse_qkv and not component.may_fuse(scheme):
            continue
        for exclusions in component.distinct_exclusions(scheme) if scheme != NONE else ((),):
            yield Choice(scheme=scheme, exclusions=exclusions, fuse_qkv=fuse_qkv)
        for mixed in component.mixed:
            if mixed.scheme == scheme:
                yield mixed.model_copy(update={"fuse_qkv": fuse_qkv})


def _exclusions_parameter(name: str, component: ComponentSpace) -> str:
    """A parameter's choices cannot change within a study, so other sets are another parameter."""
    if not component.measured_sets and not component.mixed:
        return f"{name}.exclusions"
    text = " ".join(_exclusions_names(component))
    return f"{name}.exclusions.{sha256(text.encode()).hexdigest()[:8]}"


def _exclusions_names(component: ComponentSpace) -> list[str]:
    """What can be left out of a component, or given another scheme, as an Optuna parameter."""
    return [
        *map(_exclusions_name, component.exclusions),
        *(_exclusions_name(choice.exclusions, choice.overrides) for choice in component.mixed),
    ]


def _exclusions_name(paths: tuple[str, ...], overrides: tuple[Override, ...] = ()) -> str:
    """Short, and different for different sets."""
    name = f"{len(paths)} modules, {sha256(' '.join(paths).encode()).hexdigest()[:8]}"
    if not overrides:
        return name
    text = " ".join(f"{it.scheme} {' '.join(it.layers)}" for it in overrides)
    return f"{name}, {len(overrides)} overrides, {sha256(text.encode()).hexdigest()[:8]}"
