"""The search on the table that benchmarks/record_table.py measured for real."""

from __future__ import annotations

import pytest

from autoquant.planner.budget import Budget
from autoquant.planner.prediction_error import prediction_error
from autoquant.planner.search import search
from autoquant.planner.search_settings import SearchSettings
from autoquant.planner.selection import choose, is_feasible
from benchmarks.recorded_table import RecordedTable
from benchmarks.rules_of_thumb import RULES
from benchmarks.search_runs import autoquant_search, is_within


@pytest.fixture(scope="module")
def table() -> RecordedTable:
    return RecordedTable()


def test_the_table_holds_the_product_of_its_choices(table: RecordedTable) -> None:
    assert len(table) == 25 * 5 * 4 * 2
    for row in (0, 1, 499, 999):
        assert table.row(table.candidate(row)) == row
    reference = table.measure(table.candidate(0))
    assert table.candidate(0).is_reference
    assert reference.loss == 0
    assert reference.peak_gb > reference.weights_gb


@pytest.mark.parametrize("share", [0.8, 0.6])
def test_the_best_plan_is_found_at_a_twentieth_of_the_cost(
    table: RecordedTable, share: float
) -> None:
    budget = Budget.of(vram_gb=share * table.measure(table.candidate(0)).peak_gb)
    everything = list(table.all_measured())
    best = min(measured.loss for measured in everything if is_feasible(measured, budget))
    ledger = autoquant_search(table, budget, seed=0)
    assert is_within(ledger.steps[-1].loss, best)
    assert ledger.steps[-1].seconds <= 0.05 * sum(table.entries["columns"]["seconds"])


def test_one_candidate_of_a_thousand_that_fits_is_found(table: RecordedTable) -> None:
    measured = table.measure(table.candidate(0))
    budget = Budget.of(0.394 * measured.peak_gb, 1.17 * measured.latency_s.median)
    assert sum(is_feasible(other, budget) for other in table.all_measured()) == 1
    ledger = autoquant_search(table, budget, seed=0)
    assert ledger.steps[-1].loss is not None
    assert ledger.steps[-1].seconds <= 0.1 * sum(table.entries["columns"]["seconds"])


def test_no_rule_of_thumb_is_better(table: RecordedTable) -> None:
    budget = Budget.of(vram_gb=0.7 * table.measure(table.candidate(0)).peak_gb)
    result = search(table, table.space, budget, SearchSettings(trials=60))
    chosen = choose(result.trials, budget).chosen
    assert chosen.measured is not None
    assert chosen.measured.peak_gb <= (budget.vram_gb or 0)
    for rule in RULES.values():
        planned = rule(table, budget)
        measured = None if planned is None else table.measure(planned)
        if measured is not None and is_feasible(measured, budget):
            assert min(t.measured.loss for t in result.trials if t.measured) <= measured.loss
    error = prediction_error(result.trials)
    assert error is not None
    assert error.peak_median < 0.01


def test_a_smaller_table_keeps_the_rows_that_are_in_it(table: RecordedTable) -> None:
    smaller = table.restricted({"transformer": ("torchao:int8wo",)}, runtimes=1, prompts=4)
    assert len(smaller) == 4 * 5 * 4
    for row in (0, 33, 79):
        candidate = smaller.candidate(row)
        assert smaller.measure(candidate).peak_gb == table.measure(candidate).peak_gb
        assert smaller.seconds(candidate) < table.seconds(candidate)
