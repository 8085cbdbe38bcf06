from __future__ import annotations

import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autoquant.errors import InputError
from autoquant.metrics.latency import LatencySummary, summarize, timed
from tests.metrics.conftest import FakeAccelerator


def test_quartiles() -> None:
    assert summarize([5.0, 1.0, 2.0, 4.0, 3.0]) == LatencySummary(
        median=3.0, low=2.0, high=4.0, runs=5, seconds=(5.0, 1.0, 2.0, 4.0, 3.0)
    )


def test_one_run_is_its_own_spread() -> None:
    assert summarize([2]) == LatencySummary(median=2.0, low=2.0, high=2.0, runs=1, seconds=(2.0,))


@pytest.mark.parametrize("seconds", [[], [1.0, -0.1], [float("nan")], [1.0, float("inf")]])
def test_times_that_are_none_are_refused(seconds: list[float]) -> None:
    with pytest.raises(InputError, match="one or more finite, non-negative times"):
        summarize(seconds)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20))
def test_the_summary_is_ordered_and_within_the_runs(seconds: list[float]) -> None:
    found = summarize(seconds)
    slack = 1e-9 * max(seconds)
    assert min(seconds) <= found.low + slack
    assert found.low <= found.median + slack
    assert found.median <= found.high + slack
    assert found.high <= max(seconds) + slack


def test_timed_measures_the_region() -> None:
    with timed(torch.device("cpu")) as clock:
        time.sleep(0.02)
    assert 0.02 <= clock.seconds < 1.0


def test_timed_waits_for_the_device_before_and_after(fake_accelerator: FakeAccelerator) -> None:
    with timed(torch.device("cuda:0")):
        assert fake_accelerator.calls == ["synchronize"]
    assert fake_accelerator.calls == ["synchronize", "synchronize"]
