"""The blind test in a real browser."""

from __future__ import annotations

import re

import pytest
from scipy import stats

from tests.planner.report.conftest import Open
from tests.planner.report.driving import answer
from tests.planner.report.recorded_run import PROMPTS, recorded_plan


@pytest.mark.parametrize(
    ("right", "judgement"),
    [
        (5, "You can very likely tell them apart."),
        (4, "Not enough to say that you can tell them apart."),
        (0, "Not enough to say that you can tell them apart."),
    ],
)
def test_the_blind_test_counts_and_scores_against_chance(
    visit: Open, right: int, judgement: str
) -> None:
    page = visit()
    answer(page, right=right)
    assert page.locator("[data-score]").inner_text() == f"{right} of 5 right"
    assert page.locator("[data-verdict]").inner_text() == judgement
    shown = re.search(r"p = ([\d.e-]+\d)", page.locator("[data-explanation]").inner_text())
    assert shown is not None
    exact = stats.binomtest(right, 5, 0.5, alternative="greater").pvalue
    assert float(shown[1]) == pytest.approx(exact, rel=0.05)
    assert page.locator("[data-answers] li.right").count() == right
    assert "You had seen the answers" not in page.locator("[data-explanation]").inner_text()
    answer(page, right=5)
    assert page.locator("[data-score]").inner_text() == "5 of 5 right"
    assert "You had seen the answers" in page.locator("[data-explanation]").inner_text()


def test_the_chance_of_guessing_is_exact(visit: Open) -> None:
    page = visit()
    for n in (1, 5, 16, 64, 500):
        for right in {0, 1, n // 2, n - 1, n}:
            shown = page.evaluate(f"chanceOfGuessing({right}, {n})")
            exact = stats.binomtest(right, n, 0.5, alternative="greater").pvalue
            assert shown == pytest.approx(exact, rel=1e-9), (right, n)
    assert page.evaluate("rightNeeded(4)") is None
    assert page.evaluate("rightNeeded(10)") == 9


def test_the_order_is_random_and_no_pair_is_asked_twice(visit: Open) -> None:
    page = visit()
    orders = set()
    first_was_quantized = 0
    for _ in range(4):
        answer(page, right=0)
        lines = page.locator("[data-answers] li").all_inner_texts()
        assert sorted(line.rpartition(" · ")[2] for line in lines) == sorted(PROMPTS[:-1])
        orders.add(tuple(line.rpartition(" · ")[2] for line in lines))
        first_was_quantized += sum("the first was quantized" in line for line in lines)
    assert len(orders) > 1
    # All 20 alike has a chance of 1 in 500,000.
    assert 0 < first_was_quantized < 20


def test_few_pairs_are_said_to_prove_nothing(visit: Open) -> None:
    page = visit(recorded_plan(prompts=PROMPTS[:3]))
    assert "So few rounds (2) cannot prove anything" in page.locator("#blind-test").inner_text()
    answer(page, right=2)
    assert page.locator("[data-verdict]").inner_text() == "Too few rounds to know."
