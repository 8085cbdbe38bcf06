from __future__ import annotations

from autoquant.metrics.guard import lost_prompts
from autoquant.metrics.score import MetricScore
from autoquant.metrics.statistics import mean_interval


def deltas(*values: float) -> dict[str, MetricScore]:
    mean, low, high = mean_interval(values)
    worst = min(values)
    return {
        "clip_delta": MetricScore(
            mean=mean,
            low=low,
            high=high,
            worst=worst,
            worst_index=values.index(worst),
            per_image=values,
        )
    }


def test_images_that_all_follow_their_prompts_less_are_told() -> None:
    warning = lost_prompts(deltas(-7.0, -6.5, -8.0, -7.5, -6.0))
    assert warning is not None
    assert "CLIP falls by 7 points" in warning


def test_scatter_around_nothing_is_not() -> None:
    assert lost_prompts(deltas(-3.0, 3.5, -1.0, 2.0, -2.0)) is None


def test_a_fall_that_is_sure_but_of_no_account_is_not() -> None:
    assert lost_prompts(deltas(-0.3, -0.31, -0.29, -0.3)) is None


def test_a_rise_is_not() -> None:
    assert lost_prompts(deltas(3.0, 3.1, 2.9)) is None


def test_one_image_or_no_clip_says_nothing() -> None:
    assert lost_prompts(deltas(-9.0)) is None
    assert lost_prompts({}) is None
