"""A space as axes to choose along: one for each component, and one for the runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.parameters import choices, runtimes
from autoquant.search_spaces.levers import CONFLICTING_LEVERS
from autoquant.search_spaces.scheme import NONE, Choice, Scheme
from autoquant.search_spaces.space import SearchSpace

# Where options stand on their axes: shape (n, axes) for n candidates.
Indices = NDArray[np.int64]
# The same, an array for each axis, which are broadcast together: each of shape (n,), or an open
# mesh (``numpy.ix_``) for all combinations.
Positions = Sequence[NDArray[np.int64]]
RUNTIME = "runtime"

# What an unquantized weight takes, and what an unknown precision's name is taken for.
_FULL_BITS = 16.0
_UNKNOWN_BITS = 8.0


@dataclass(frozen=True)
class Axis:
    """One decision.

    Attributes:
        name: A component's name, or ``RUNTIME``.
        options: What can be chosen; the first changes nothing.
    """

    name: str
    options: tuple[Choice | Runtime, ...]

    @cached_property
    def position(self) -> Mapping[Choice | Runtime, int]:
        """Where each option stands."""
        return {option: place for place, option in enumerate(self.options)}

    @cached_property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """What options have in common, by kind of likeness: one label for each option."""
        if self.name == RUNTIME:
            levers = sorted({key for option in self.options for key in option.model_dump()})
            return {
                lever: tuple(str(getattr(option, lever)) for option in self.options)
                for lever in levers
            }
        made = [option for option in self.options if isinstance(option, Choice)]
        return {
            "scheme": tuple(choice.scheme for choice in made),
            "width": tuple(f"{bits(choice.scheme):g}" for choice in made),
            "exclusions": tuple(" ".join(choice.exclusions) for choice in made),
            "overrides": tuple(
                " ".join(f"{it.scheme} {' '.join(it.layers)}" for it in choice.overrides)
                for choice in made
            ),
            "fuse_qkv": tuple(str(choice.fuse_qkv) for choice in made),
        }

    @cached_property
    def failing_alike(self) -> tuple[tuple[str, ...], ...]:
        """Labels of what options have in common that fail for one reason: a scheme, a lever."""
        kinds = self.labels if self.name == RUNTIME else ["scheme"]
        return tuple(self.labels[kind] for kind in kinds)

    @cached_property
    def bits(self) -> NDArray[np.float64]:
        """Bits of a weight under each option, as far as its name says."""
        return np.array(
            [bits(o.scheme) if isinstance(o, Choice) else _FULL_BITS for o in self.options]
        )

    @cached_property
    def damages(self) -> NDArray[np.bool_]:
        """Which options can change an image: neither fusing alone does, nor offload."""
        return np.array([self._damages(option) for option in self.options])

    def _damages(self, option: Choice | Runtime) -> bool:
        if isinstance(option, Choice):
            return option.scheme != NONE
        usual = self.options[0]
        assert isinstance(usual, Runtime)
        return option.model_copy(update={"offload": usual.offload}) != usual


def bits(scheme: str) -> float:
    """The first number in a precision's name: bits of a weight without its scales."""
    if scheme == NONE:
        return _FULL_BITS
    width = Scheme.parse(scheme).width
    return _UNKNOWN_BITS if width is None else float(width)


def axes_of(space: SearchSpace, runtime: Runtime) -> tuple[Axis, ...]:
    """The axes of ``space``, where ``runtime`` is the reference's."""
    components = [
        Axis(name, tuple(dict.fromkeys((Choice(), *choices(component)))))
        for name, component in space.components.items()
    ]
    others = (other for other in runtimes(space, runtime) if other != runtime)
    return (*components, Axis(RUNTIME, (runtime, *others)))


def refused_pairs(axis: Axis, levers: Axis, space: SearchSpace) -> NDArray[np.bool_]:
    """Which options of ``axis`` the compatibility table forbids beside which levers.

    Shape (options, levers' options).
    """
    if not space.conflicts:
        return np.zeros((len(axis.options), len(levers.options)), dtype=bool)
    return np.array(
        [
            [
                any(
                    space.why_refused(axis.name, made, lever, getattr(runtime, lever))
                    for lever in CONFLICTING_LEVERS
                )
                for runtime in levers.options
            ]
            for made in axis.options
            if isinstance(made, Choice)
        ]
    )


def positions_of(rows: Indices) -> Positions:
    """Rows of shape (n, axes) as one array for each axis."""
    return tuple(rows.T)


def indices_of(candidate: Candidate, axes: Sequence[Axis]) -> tuple[int, ...] | None:
    """Where ``candidate`` stands on each axis; ``None`` if an axis does not hold its choice."""
    places = [
        axis.position.get(
            candidate.runtime if axis.name == RUNTIME else candidate.components[axis.name]
        )
        for axis in axes
    ]
    found = tuple(place for place in places if place is not None)
    return found if len(found) == len(places) else None


def candidate_at(indices: Sequence[int], axes: Sequence[Axis]) -> Candidate:
    """The candidate at a place on each axis."""
    chosen = {axis.name: axis.options[place] for axis, place in zip(axes, indices, strict=True)}
    runtime = chosen.pop(RUNTIME)
    assert isinstance(runtime, Runtime)
    return Candidate(
        components={name: o for name, o in chosen.items() if isinstance(o, Choice)},
        runtime=runtime,
    )
