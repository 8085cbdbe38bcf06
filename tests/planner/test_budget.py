from __future__ import annotations

import math

import pytest

from autoquant.errors import InputError
from autoquant.planner.budget import Budget


def test_limits_are_kept_as_floats() -> None:
    budget = Budget.of(vram_gb=16, latency_s=10)
    assert budget.vram_gb == 16.0
    assert budget.latency_s == 10.0
    assert budget.max_loss is None


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, "16"])
def test_a_limit_that_is_no_positive_number_is_named(value: object) -> None:
    with pytest.raises(InputError, match=r"vram_gb must be a .*number"):
        Budget.of(vram_gb=value)  # type: ignore[arg-type]


def test_a_loss_of_nothing_may_be_asked_for() -> None:
    assert Budget.of(max_loss=0).max_loss == 0.0
