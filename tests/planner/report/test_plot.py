from __future__ import annotations

import itertools

import pytest

from autoquant.planner.budget import Budget
from autoquant.planner.plan import Plan
from autoquant.planner.report.plot import Plot, plots_of
from tests.planner.report.recorded_run import CHOSEN, SCHEMES, recorded_plan


def memory_plot(plan: Plan) -> Plot:
    return plots_of(plan)[0]


def time_plot(plan: Plan) -> Plot:
    return plots_of(plan)[1]


def test_each_candidate_is_one_mark_and_the_chosen_one_lies_on_top() -> None:
    for plot in plots_of(recorded_plan()):
        assert len(plot.marks) == len(SCHEMES)
        assert [mark.point.chosen for mark in plot.marks] == [False, False, False, True]
        assert CHOSEN in plot.marks[-1].point.name
        assert plot.labels[0].text == "chosen"


def test_marks_are_ordered_as_their_figures_are() -> None:
    marks = memory_plot(recorded_plan()).marks
    for one, other in itertools.combinations(marks, 2):
        assert (one.x < other.x) == (one.point.peak_gb < other.point.peak_gb)
        assert (one.y > other.y) == (one.point.loss < other.point.loss)


def test_the_budget_parts_the_marks_that_keep_it_from_those_that_miss_it() -> None:
    plan = recorded_plan(budget=Budget.of(vram_gb=16))
    plot = memory_plot(plan)
    assert plot.x_limit is not None
    assert plot.x_limit.at is not None
    assert plot.x_limit.text == "budget 16.00 GB"
    for mark in plot.marks:
        assert (mark.x > plot.x_limit.at) == bool(mark.point.missed)
    assert time_plot(plan).x_limit is None


def test_a_budget_far_away_is_named_and_does_not_squeeze_the_marks() -> None:
    near = memory_plot(recorded_plan(budget=Budget.of(latency_s=9)))
    far = memory_plot(recorded_plan(budget=Budget.of(vram_gb=1000)))
    assert far.x_limit is not None
    assert far.x_limit.at is None
    assert "1000.00 GB" in far.x_limit.text
    assert [mark.x for mark in far.marks] == [mark.x for mark in near.marks]


@pytest.mark.parametrize(("limit", "drawn"), [(0.05, True), (5.0, False)])
def test_a_limit_on_the_loss_is_drawn_or_named(limit: float, drawn: bool) -> None:
    plot = memory_plot(recorded_plan(budget=Budget.of(max_loss=limit)))
    assert plot.y_limit is not None
    assert (plot.y_limit.at is not None) == drawn


def test_no_mark_lies_below_and_left_of_the_front() -> None:
    for plot in plots_of(recorded_plan()):
        xs = [x for x, _ in plot.front]
        ys = [y for _, y in plot.front]
        assert xs == sorted(xs)
        assert ys == sorted(ys)
        for mark in plot.marks:
            reached = [y for x, y in plot.front if x <= mark.x]
            assert not reached or mark.y <= max(reached) + 1e-9


def test_latency_has_its_spread_and_loss_its_interval() -> None:
    chosen = time_plot(recorded_plan()).marks[-1]
    assert chosen.x_whisker is not None
    assert chosen.x_whisker[0] < chosen.x < chosen.x_whisker[1]
    assert chosen.y_whisker is not None
    assert memory_plot(recorded_plan()).marks[-1].x_whisker is None


def test_a_plan_without_a_pareto_set_shows_the_choice_and_the_unquantized_pipeline() -> None:
    plot = memory_plot(recorded_plan(pareto=()))
    assert [mark.point.is_reference for mark in plot.marks] == [True, False]
    assert [mark.point.chosen for mark in plot.marks] == [False, True]
