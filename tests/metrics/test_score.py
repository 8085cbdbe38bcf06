from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from autoquant.metrics.score import GUARDS, LOSS, PSNR_CAP_DB, MetricScore, loss_of, losses_of


def scored(*values: float) -> MetricScore:
    mean = sum(values) / len(values)
    return MetricScore(
        mean=mean, low=None, high=None, worst=max(values), worst_index=0, per_image=values
    )


@pytest.mark.parametrize(
    ("metric", "value", "loss"),
    [
        ("lpips", 0.2, 0.2),
        ("flip", 0.1, 0.1),
        ("ssim", 0.9, 0.1),
        ("psnr", 20.0, 0.1),
        ("psnr", 40.0, 0.01),
        ("psnr", PSNR_CAP_DB, 0.0),
        ("clip_image", 0.75, 0.25),
        ("clip_delta", -2.0, 2.0),
        ("clip_delta", 3.0, 0.0),
        ("another_packages", 0.3, 0.3),
    ],
)
def test_a_value_becomes_a_loss(metric: str, value: float, loss: float) -> None:
    assert losses_of(metric, scored(value)) == pytest.approx((loss,))


def test_the_loss_is_a_mean_of_losses_and_not_the_loss_of_a_mean() -> None:
    assert loss_of("psnr", scored(20.0, 40.0), 0.0) == pytest.approx(0.055)


def test_the_noise_floor_comes_off_and_never_below_zero() -> None:
    assert loss_of("flip", scored(0.3, 0.1), 0.05) == pytest.approx(0.15)
    assert loss_of("flip", scored(0.01), 0.05) == 0.0


@given(st.lists(st.floats(0, 99.9), min_size=2, max_size=2, unique=True))
def test_more_decibels_are_less_loss(decibels: list[float]) -> None:
    low, high = sorted(decibels)
    losses = losses_of("psnr", scored(low, high))
    assert losses[0] >= losses[1] > 0


def test_a_score_is_strict_json() -> None:
    score = scored(PSNR_CAP_DB, 30.0)
    read = json.loads(score.model_dump_json(), parse_constant=pytest.fail)
    assert MetricScore.model_validate(read) == score
    with pytest.raises(ValidationError):
        scored(math.inf)
    with pytest.raises(ValidationError):
        MetricScore.model_validate({**read, "surprise": 1})


def test_guards_are_no_deciders() -> None:
    assert {name for name in LOSS if name not in GUARDS} == {"lpips", "flip", "ssim", "psnr"}
