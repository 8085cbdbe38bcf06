from __future__ import annotations

import pytest

from autoquant.planner.axes import axes_of
from autoquant.planner.candidate import Runtime
from autoquant.planner.chance_to_run import Place, chances_to_run
from autoquant.search_spaces.levers import LeverSpace
from autoquant.search_spaces.space import ComponentSpace, SearchSpace

SPACE = SearchSpace(
    components={
        name: ComponentSpace(schemes=("none", "fake:int8", "fake:int4"), exclusions=((), ("out",)))
        for name in ("transformer", "text_encoder")
    },
    levers=LeverSpace(offload=("none", "model"), compile=("none", "regional")),
)
AXES = axes_of(SPACE, Runtime())
NOTHING = (0, 0, 0)
# Options of a component: none, int8, int8 without `out`, int4, int4 without `out`.
INT8, INT4 = 1, 3


def chances(
    *,
    ran: tuple[Place, ...] = (NOTHING,),
    faulty: tuple[Place, ...] = (),
    lost: tuple[Place, ...] = (),
) -> list[list[float]]:
    found = chances_to_run(AXES, ran, [*faulty, *lost], faulty)
    return [chance.tolist() for chance in found]


def test_what_nothing_speaks_against_runs() -> None:
    assert all(chance == 1 for of_axis in chances() for chance in of_axis)


def test_a_scheme_that_failed_is_to_blame_in_every_form() -> None:
    transformer, text_encoder, runtime = chances(faulty=((INT4, 0, 0),))
    assert transformer == pytest.approx([1, 1, 1, 1 / 3, 1 / 3])
    assert set(text_encoder) == set(runtime) == {1.0}


def test_two_failures_weigh_twice() -> None:
    transformer, *_ = chances(faulty=((INT4, 0, 0), (INT4 + 1, 0, 0)))
    assert transformer[INT4] == pytest.approx(1 / 9)


def test_the_blame_is_shared_by_what_never_ran() -> None:
    transformer, text_encoder, _ = chances(faulty=((INT4, INT8, 0),))
    assert transformer[INT4] * text_encoder[INT8] == pytest.approx(1 / 3)
    ran = (NOTHING, (0, INT8, 0))
    transformer, text_encoder, _ = chances(ran=ran, faulty=((INT4, INT8, 0),))
    assert (transformer[INT4], text_encoder[INT8]) == (pytest.approx(1 / 3), 1.0)


def test_a_form_of_a_scheme_that_runs_in_another_is_alone_to_blame() -> None:
    ran, faulty = (NOTHING, (INT4 + 1, 0, 0)), ((INT4, 0, 0),)
    transformer, *_ = chances(ran=ran, faulty=faulty)
    assert transformer == pytest.approx([1, 1, 1, 1 / 3, 1])


def test_a_lever_that_failed_is_to_blame_beside_every_other() -> None:
    levers = [option.model_dump() for option in AXES[-1].options]
    compiled = [place for place, lever in enumerate(levers) if lever["compile"] == "regional"]
    assert len(compiled) == 2
    alone = next(place for place in compiled if levers[place]["offload"] == "none")
    *_, runtime = chances(faulty=((0, 0, alone),))
    assert [runtime[place] for place in compiled] == pytest.approx([1 / 3, 1 / 3])
    assert runtime[0] == 1


def test_what_is_under_way_says_nothing_of_what_is_like_it() -> None:
    transformer, *_ = chances(lost=((INT4, 0, 0),))
    assert transformer == pytest.approx([1, 1, 1, 1 / 3, 1])
