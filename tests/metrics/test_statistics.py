from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoquant.errors import InputError
from autoquant.metrics.statistics import MeanInterval, mean_interval, paired_difference

values = st.floats(-1e6, 1e6)
few = settings(max_examples=40, deadline=None)


@few
@given(st.lists(values, min_size=2, max_size=30))
def test_the_interval_holds_the_mean_and_lies_within_the_values(sample: list[float]) -> None:
    mean, low, high = mean_interval(sample)
    assert low is not None
    assert high is not None
    slack = 1e-9 * max(map(abs, sample))
    assert min(sample) - slack <= low <= mean <= high <= max(sample) + slack


@few
@given(st.lists(st.tuples(values, values), min_size=2, max_size=20))
def test_swapping_the_pair_turns_the_difference_round(pairs: list[tuple[float, float]]) -> None:
    a, b = ([pair[side] for pair in pairs] for side in (0, 1))
    forth, back = paired_difference(a, b), paired_difference(b, a)
    scale = 1e-9 * (1 + max(map(abs, a + b)))
    assert math.isclose(forth.mean, -back.mean, abs_tol=scale)
    assert forth.low is not None
    assert back.high is not None
    assert math.isclose(forth.low, -back.high, abs_tol=scale)


@few
@given(st.lists(values, min_size=2, max_size=20))
def test_equal_scores_do_not_differ(sample: list[float]) -> None:
    assert paired_difference(sample, sample) == MeanInterval(0.0, 0.0, 0.0)


def test_a_constant_difference_is_certain() -> None:
    found = paired_difference([1.5, 2.5, 3.5], [1.0, 2.0, 3.0])
    assert found == MeanInterval(0.5, 0.5, 0.5)


def test_one_pair_tells_nothing_of_the_spread() -> None:
    assert paired_difference([1.0], [3.0]) == MeanInterval(-2.0, None, None)


def test_the_same_values_always_give_the_same_interval() -> None:
    sample = list(np.random.default_rng(0).exponential(size=12))
    assert mean_interval(sample) == mean_interval(sample)


def test_pairing_tells_apart_what_unpaired_intervals_do_not() -> None:
    rng = np.random.default_rng(0)
    hard = rng.exponential(size=16)
    a = list(hard + 0.05 + rng.normal(scale=0.02, size=16))
    b = list(hard + rng.normal(scale=0.02, size=16))
    difference = paired_difference(a, b)
    assert difference.low is not None
    assert difference.low > 0
    ours, theirs = mean_interval(a), mean_interval(b)
    assert ours.low is not None
    assert theirs.high is not None
    assert ours.low < theirs.high


@pytest.mark.parametrize("n", [8, 24])
def test_nineteen_of_twenty_intervals_hold_the_true_mean(n: int) -> None:
    rng = np.random.default_rng(1)
    intervals = [mean_interval(rng.normal(size=n)) for _ in range(200)]
    held = [i.low <= 0 <= i.high for i in intervals if i.low is not None and i.high is not None]
    assert 0.90 <= sum(held) / len(held) <= 0.99


@pytest.mark.parametrize("sample", [[], [1.0, math.nan], [math.inf]])
def test_what_is_no_sample_is_refused(sample: list[float]) -> None:
    with pytest.raises(InputError, match="one or more finite numbers"):
        mean_interval(sample)


def test_pairs_of_unequal_length_are_refused() -> None:
    with pytest.raises(InputError, match="equal lengths, got 2 and 1"):
        paired_difference([1.0, 2.0], [1.0])
