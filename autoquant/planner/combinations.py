"""The candidates of a space that could be measured next, as an open mesh over its axes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from autoquant.planner.axes import Axis, Indices, Positions, candidate_at
from autoquant.planner.candidate import Candidate
from autoquant.planner.effects import Floats

# Predicting this many takes some hundredths of a second; a larger space loses its least promising
# options first.
_MOST_COMBINATIONS = 50_000


@dataclass(frozen=True)
class Combinations:
    """Combinations of some options of each axis.

    Attributes:
        axes: The axes.
        options: For each axis where the options stand that are combined.
        is_open: Which combinations may be measured, in the mesh's shape.
    """

    axes: Sequence[Axis]
    options: Sequence[Indices]
    is_open: NDArray[np.bool_]

    @property
    def positions(self) -> Positions:
        """All of them as an open mesh."""
        return np.ix_(*self.options)

    def candidate(self, row: int) -> Candidate:
        """The one at ``row`` of those that are open."""
        places = np.unravel_index(self._open_places[row], self.is_open.shape)
        at = [int(known[place]) for known, place in zip(self.options, places, strict=True)]
        return candidate_at(at, self.axes)

    @cached_property
    def _open_places(self) -> Indices:
        return np.flatnonzero(self.is_open)

    def without(self, measured: Iterable[Sequence[int]]) -> Combinations:
        """The same, but for candidates that stand at these places of the axes."""
        is_open = self.is_open.copy()
        where = [
            {int(option): place for place, option in enumerate(known)} for known in self.options
        ]
        for at in measured:
            places = [known.get(option, -1) for known, option in zip(where, at, strict=True)]
            if min(places) >= 0:
                is_open[tuple(places)] = False
        return Combinations(self.axes, self.options, is_open)


def combinations(
    axes: Sequence[Axis],
    refused: Sequence[NDArray[np.bool_]],
    merits: Callable[[int], Floats],
) -> Combinations:
    """Every combination of options, or of those that fewest others of their axis beat.

    Args:
        axes: The axes of a space.
        refused: For each axis but the last which options are forbidden beside which of the last.
        merits: For each option of an axis how good it is in several respects: less is better.
    """
    options = [np.arange(len(axis.options)) for axis in axes]
    if prod(map(len, options)) > _MOST_COMBINATIONS:
        options = [_least_beaten_first(merits(axis)) for axis in range(len(options))]
    while prod(map(len, options)) > _MOST_COMBINATIONS:
        longest = max(range(len(options)), key=lambda axis: len(options[axis]))
        options[longest] = options[longest][:-1]
    is_open = np.ones([len(known) for known in options], dtype=bool)
    *components, levers = np.ix_(*options)
    for at, pairs in zip(components, refused, strict=True):
        is_open &= ~pairs[at, levers]
    return Combinations(axes, options, is_open)


def _least_beaten_first(merits: Floats) -> Indices:
    """Positions of options, those first that fewest others are better than in every column."""
    better = (merits[:, None, :] < merits[None, :, :]).all(axis=2).sum(axis=0)
    return np.lexsort((merits[:, 2], better)).astype(np.int64)
