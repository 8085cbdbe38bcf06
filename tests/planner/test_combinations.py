from __future__ import annotations

import numpy as np
import pytest

from autoquant.planner import combinations as module
from autoquant.planner.axes import axes_of, indices_of, refused_pairs
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.combinations import Combinations, combinations
from autoquant.planner.effects import Floats
from autoquant.search_spaces.levers import LeverConflict, LeverSpace
from autoquant.search_spaces.scheme import Choice
from autoquant.search_spaces.space import ComponentSpace, SearchSpace

SCHEMES = ("none", "fake:int8", "fake:int4")
CONFLICT = LeverConflict(
    component="transformer", scheme="fake:int4", lever="offload", value="model", reason="it crashes"
)
SPACE = SearchSpace(
    components={name: ComponentSpace(schemes=SCHEMES) for name in ("text_encoder", "transformer")},
    levers=LeverSpace(offload=("none", "model")),
    conflicts=(CONFLICT,),
)
AXES = axes_of(SPACE, Runtime())
REFUSED = [refused_pairs(axis, AXES[-1], SPACE) for axis in AXES[:-1]]


def merits(axis: int) -> Floats:
    """Of the first component int8 is worst in everything, of others nothing is."""
    size = len(AXES[axis].options)
    worse = [AXES[axis].options[place] == Choice(scheme="fake:int8") for place in range(size)]
    return np.array(worse if axis == 0 else np.zeros(size), dtype=float)[:, None].repeat(3, axis=1)


def candidates(found: Combinations) -> list[Candidate]:
    return [found.candidate(row) for row in range(int(found.is_open.sum()))]


def every() -> Combinations:
    return combinations(AXES, REFUSED, merits)


def test_all_combinations_are_there_once_but_those_that_the_table_forbids() -> None:
    found = candidates(every())
    assert len(found) == len({it.key for it in found})
    crashing = [
        it
        for it in found
        if it.components["transformer"].scheme == "fake:int4" and it.runtime.offload == "model"
    ]
    assert crashing == []
    assert len(found) == np.prod([len(axis.options) for axis in AXES]) - len(SCHEMES) * sum(
        getattr(runtime, "offload", "") == "model" for runtime in AXES[-1].options
    )


def test_a_row_of_what_is_predicted_belongs_to_the_candidate_of_that_row() -> None:
    found = every()
    rows = np.stack([at[found.is_open] for at in np.broadcast_arrays(*found.positions)], axis=1)
    assert [tuple(row) for row in rows.tolist()] == [
        indices_of(candidate, AXES) for candidate in candidates(found)
    ]


def test_what_was_measured_is_left_out() -> None:
    found = candidates(every())
    left = every().without([at for it in found[:3] if (at := indices_of(it, AXES))])
    assert candidates(left) == found[3:]


def test_a_space_that_is_too_large_loses_what_others_beat_in_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = candidates(every())
    monkeypatch.setattr(module, "_MOST_COMBINATIONS", len(whole) - 1)
    found = every()
    kept = {it.components["text_encoder"].scheme for it in candidates(found)}
    assert kept == {"none", "fake:int4"}
    beaten = next(it for it in whole if it.components["text_encoder"].scheme == "fake:int8")
    measured = indices_of(beaten, AXES)
    assert measured is not None
    assert candidates(found.without([measured])) == candidates(found)


def test_an_axis_of_one_option_is_no_obstacle() -> None:
    alone = SearchSpace(components={"transformer": ComponentSpace(schemes=("none",))})
    axes = axes_of(alone, Runtime())
    refused = [refused_pairs(axes[0], axes[-1], alone)]
    assert len(candidates(combinations(axes, refused, merits))) == 1
