from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.planner.report.axis import LinearAxis, RootAxis, Unit, memory_unit, time_unit

PLAIN = Unit("s", 1.0)
AMOUNTS = st.floats(0, 1e6, allow_subnormal=False).map(lambda value: round(value, 6))


@given(st.lists(AMOUNTS, min_size=1, max_size=8))
def test_every_value_and_tick_lies_inside_a_linear_axis(values: list[float]) -> None:
    axis = LinearAxis.around(values, 56, 404, PLAIN)
    assert all(56 <= axis.place(value) <= 404 for value in values)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 9
    assert all(56 - 1e-3 <= tick.at <= 404 + 1e-3 for tick in ticks)
    assert len({tick.text for tick in ticks}) == len(ticks)


@given(st.lists(AMOUNTS, min_size=1, max_size=8))
def test_every_loss_lies_inside_a_root_axis_and_ticks_keep_apart(values: list[float]) -> None:
    axis = RootAxis.up_to(values, start=274, end=34)
    assert all(34 <= axis.place(value) <= 274 for value in values)
    at = sorted(tick.at for tick in axis.ticks())
    assert all(right - left >= 34 for left, right in itertools.pairwise(at))
    assert at[-1] == 274


def test_a_tick_stands_where_its_value_would() -> None:
    axis = LinearAxis.around([0.004, 0.010], 0, 100, memory_unit([0.004, 0.010]))
    for tick in axis.ticks():
        assert axis.place(float(tick.text) / 1024) == pytest.approx(tick.at)


def test_more_is_further_right_and_more_loss_further_up() -> None:
    axis = LinearAxis.around([1, 2, 3], 0, 100, PLAIN)
    assert axis.place(1) < axis.place(2) < axis.place(3)
    losses = RootAxis.up_to([0.1, 0.4], start=100, end=0)
    assert losses.place(0) == 100
    assert losses.place(0.1) > losses.place(0.4)


@pytest.mark.parametrize(
    ("unit", "name"),
    [
        (memory_unit([0.01, 0.09]), "MB"),
        (memory_unit([0.01, 0.2]), "GB"),
        (time_unit([0.3, 0.9]), "ms"),
        (time_unit([0.3, 2]), "s"),
        (time_unit([150, 300]), "min"),
    ],
)
def test_the_unit_fits_the_values(unit: Unit, name: str) -> None:
    assert unit.name == name
