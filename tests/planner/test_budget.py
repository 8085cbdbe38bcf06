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


def test_an_objective_that_would_reward_damage_needs_a_limit_on_the_loss() -> None:
    assert Budget.of(vram_gb=4).objective == "loss"
    assert Budget.of(max_loss=0.1, objective="latency").objective == "latency"
    with pytest.raises(InputError, match=r"'vram' needs a limit on the loss \(max_loss\)"):
        Budget.of(vram_gb=4, objective="vram")
    with pytest.raises(InputError, match="must be one of loss, latency, vram, got 'speed'"):
        Budget.of(objective="speed")


def test_host_memory_and_the_session_are_checked_like_the_others() -> None:
    budget = Budget.of(ram_gb=8, calls_per_session=100)
    assert (budget.ram_gb, budget.calls_per_session) == (8.0, 100.0)
    with pytest.raises(InputError, match="ram_gb must be"):
        Budget.of(ram_gb=-1)
    with pytest.raises(InputError, match="calls_per_session must be"):
        Budget.of(calls_per_session=0)
