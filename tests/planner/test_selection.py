from __future__ import annotations

import pytest

from autoquant.errors import InfeasibleBudget
from autoquant.planner.budget import Budget
from autoquant.planner.measurement import Trial
from autoquant.planner.selection import choose, excess, is_feasible, pareto_set
from tests.planner.measurements import candidate, measured, trial


def test_excess_names_each_stated_limit_only() -> None:
    budget = Budget.of(vram_gb=2, latency_s=1)
    assert excess(measured(peak_gb=3, latency_s=0.5), budget) == {
        "vram_gb": pytest.approx(1),
        "latency_s": pytest.approx(-0.5),
    }


def test_a_limit_that_is_met_exactly_is_kept() -> None:
    assert is_feasible(measured(peak_gb=2), Budget.of(vram_gb=2))


def test_the_least_loss_that_fits_is_chosen() -> None:
    trials = [
        trial(0, loss=0.0, peak_gb=4),
        trial(1, loss=0.1, peak_gb=2),
        trial(2, loss=0.3, peak_gb=1),
    ]
    assert choose(trials, Budget.of(vram_gb=2.5)).chosen.number == 1


def test_a_latency_limit_refuses_the_better_but_slower() -> None:
    trials = [
        trial(0, loss=0.01, peak_gb=1, latency_s=9),
        trial(1, loss=0.2, peak_gb=1, latency_s=2),
    ]
    assert choose(trials, Budget.of(vram_gb=2, latency_s=3)).chosen.number == 1


def test_within_the_spread_of_the_loss_the_faster_is_chosen_and_the_tie_is_said() -> None:
    trials = [
        trial(0, loss=0.100, per_image=(0.09, 0.11, 0.10, 0.10, 0.12, 0.08), latency_s=5),
        trial(1, loss=0.101, per_image=(0.11, 0.09, 0.10, 0.11, 0.10, 0.096), latency_s=2),
    ]
    selection = choose(trials, Budget.of(vram_gb=2))
    assert selection.chosen.number == 1
    assert [tied.number for tied in selection.tied] == [0]


def test_within_the_spread_of_the_latency_the_smaller_is_chosen() -> None:
    trials = [
        trial(0, loss=0.0, latency_s=1.0, spread_s=0.2, peak_gb=2),
        trial(1, loss=0.0, latency_s=1.1, spread_s=0.2, peak_gb=1),
    ]
    assert choose(trials, Budget.of(vram_gb=3)).chosen.number == 1


def test_a_clear_difference_in_loss_is_no_tie() -> None:
    trials = [
        trial(0, loss=0.01, per_image=(0.01, 0.012, 0.011, 0.009), latency_s=5),
        trial(1, loss=0.10, per_image=(0.1, 0.09, 0.11, 0.1), latency_s=1),
    ]
    assert choose(trials, Budget.of(vram_gb=2)).chosen.number == 0


def test_the_pareto_set_leaves_out_what_another_beats() -> None:
    trials = [
        trial(0, loss=0.0, peak_gb=4, latency_s=1),
        trial(1, loss=0.1, peak_gb=2, latency_s=2),
        trial(2, loss=0.2, peak_gb=3, latency_s=3),
        Trial(number=3, candidate=candidate("fake:crash"), failure="crashed"),
    ]
    assert [t.number for t in pareto_set(trials)] == [1, 0]


def test_the_unquantized_pipeline_is_shown_even_where_another_beats_it() -> None:
    trials = [
        trial(0, candidate(), loss=0.0, peak_gb=4, latency_s=2),
        trial(1, candidate("fake:int8"), loss=0.0, peak_gb=2, latency_s=1),
    ]
    selection = choose(trials, Budget.of(vram_gb=9))
    assert [t.number for t in pareto_set(trials)] == [1]
    assert [t.number for t in selection.pareto] == [1, 0]


def test_nothing_that_fits_names_the_nearest_and_the_smallest() -> None:
    trials = [
        trial(0, candidate(), loss=0.0, peak_gb=20, latency_s=1),
        trial(1, candidate("fake:int8"), loss=0.1, peak_gb=8.2, latency_s=1),
        trial(2, candidate("fake:int2"), loss=0.3, peak_gb=6.1, latency_s=9),
    ]
    with pytest.raises(
        InfeasibleBudget,
        match=r"8\.20 GB would be enough for transformer fake:int8; "
        r"the smallest found needs 6\.10 GB, the fastest takes 1\.00 s\.",
    ):
        choose(trials, Budget.of(vram_gb=6, latency_s=2))


def test_when_everything_failed_the_reasons_are_given() -> None:
    failed = Trial(number=0, candidate=candidate(), failure="out of memory")
    with pytest.raises(InfeasibleBudget, match="out of memory"):
        choose([failed], Budget.of(vram_gb=6))


def test_the_fastest_is_chosen_where_seconds_are_the_objective() -> None:
    trials = [
        trial(0, loss=0.0, peak_gb=1, latency_s=5),
        trial(1, loss=0.1, peak_gb=1, latency_s=2, per_image=(0.1, 0.1, 0.1, 0.1)),
        trial(2, loss=0.9, peak_gb=1, latency_s=1),
    ]
    budget = Budget.of(vram_gb=2, max_loss=0.2, objective="latency")
    selection = choose(trials, budget)
    assert selection.chosen.number == 1
    assert {point.number for point in selection.pareto} == {0, 1, 2}


def test_among_equally_fast_ones_the_least_damaged_is_chosen() -> None:
    trials = [
        trial(0, loss=0.1, latency_s=2.0, spread_s=0.3),
        trial(1, loss=0.01, latency_s=2.1, spread_s=0.3),
        trial(2, loss=0.0, latency_s=5.0, spread_s=0.3),
    ]
    selection = choose(trials, Budget.of(max_loss=0.2, objective="latency"))
    assert selection.chosen.number == 1
    assert [tied.number for tied in selection.tied] == [0]


def test_the_smallest_is_chosen_where_memory_is_the_objective() -> None:
    trials = [
        trial(0, loss=0.0, peak_gb=4, latency_s=1),
        trial(1, loss=0.15, peak_gb=2.0, latency_s=1),
        trial(2, loss=0.1, peak_gb=2.01, latency_s=2),
        trial(3, loss=0.1, peak_gb=1.0, latency_s=9),
    ]
    budget = Budget.of(latency_s=3, max_loss=0.2, objective="vram")
    assert choose(trials, budget).chosen.number == 2


def compiled(number: int, seconds: float, compile_s: float) -> Trial:
    made = trial(number, loss=0.0, latency_s=seconds)
    assert made.measured is not None
    known = made.measured.model_copy(update={"compile_s": compile_s})
    return made.model_copy(update={"measured": known})


def test_compiling_is_paid_back_by_a_long_session_and_refused_for_a_short_one() -> None:
    trials = [compiled(0, 2.0, 0.0), compiled(1, 1.0, 60.0)]
    assert choose(trials, Budget.of(calls_per_session=1000)).chosen.number == 1
    assert choose(trials, Budget.of(calls_per_session=10)).chosen.number == 0
    assert choose(trials, Budget()).chosen.number == 1


def test_a_latency_limit_counts_the_share_of_compiling() -> None:
    slow_start = compiled(1, 1.0, 60.0).measured
    assert slow_start is not None
    assert is_feasible(slow_start, Budget.of(latency_s=1.1, calls_per_session=1000))
    assert not is_feasible(slow_start, Budget.of(latency_s=1.1, calls_per_session=100))
    assert is_feasible(slow_start, Budget.of(latency_s=1.1))


def test_host_memory_is_a_limit_where_it_was_measured() -> None:
    held = measured().model_copy(update={"ram_gb": 3.0})
    assert not is_feasible(held, Budget.of(ram_gb=2))
    assert is_feasible(held, Budget.of(ram_gb=4))
    with pytest.raises(InfeasibleBudget, match=r"keeps 2.00 GB of host memory. 3.00 GB of host"):
        choose([Trial(number=0, candidate=candidate(), measured=held)], Budget.of(ram_gb=2))
