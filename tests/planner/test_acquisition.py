from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoquant.planner.acquisition import (
    expected_improvement,
    expected_speedup,
    probability_feasible,
)
from autoquant.planner.budget import Budget
from autoquant.planner.forecast import Forecast

ONE = np.ones(1)
FORECAST = Forecast(
    log_loss=np.log(0.1) * ONE,
    log_loss_sd=1e-6 * ONE,
    floor=0.01,
    peak_gb=2 * ONE,
    peak_gb_sd=0.1 * ONE,
    latency_s=4 * ONE,
    latency_s_sd=1e-6 * ONE,
    load_peak_gb=3 * ONE,
    load_peak_gb_sd=0.1 * ONE,
)


def test_a_limit_on_the_mean_is_kept_half_of_the_time() -> None:
    assert probability_feasible(FORECAST, Budget.of(vram_gb=2)) == pytest.approx(0.5)
    assert probability_feasible(FORECAST, Budget.of()) == 1
    assert probability_feasible(FORECAST, Budget.of(2, load_peak_gb=3)) == pytest.approx(0.25)
    assert probability_feasible(FORECAST, Budget.of(latency_s=3.9)) == pytest.approx(0)


def test_a_sure_loss_improves_by_its_distance_and_no_further_than_the_floor() -> None:
    # The losses are 0.1 and 0.001 before the floor of 0.01 is taken off.
    assert expected_improvement(FORECAST, loss=0.19) == pytest.approx(0.1, rel=1e-3)
    assert expected_improvement(FORECAST, loss=0.05) == pytest.approx(0)
    under = replace(FORECAST, log_loss=np.log(0.001) * ONE)
    assert expected_improvement(under, loss=0.05) == pytest.approx(0.05)


def test_an_unsure_loss_may_improve_what_its_mean_does_not() -> None:
    unsure = replace(FORECAST, log_loss_sd=0.5 * ONE)
    assert 0 < expected_improvement(unsure, loss=0.08)[0] < 0.08


def test_a_speedup_counts_where_the_loss_stays() -> None:
    assert expected_speedup(FORECAST, 5.0, loss=0.09) == pytest.approx(0.2)
    assert expected_speedup(FORECAST, 5.0, loss=0.08) == pytest.approx(0)
    assert expected_speedup(FORECAST, 3.0, loss=0.09) == pytest.approx(0)


def test_an_improvement_is_finite_however_unsure_the_loss_is() -> None:
    unsure = replace(FORECAST, log_loss_sd=80.0 * ONE)
    assert 0 < expected_improvement(unsure, loss=0.08)[0] < 0.08
