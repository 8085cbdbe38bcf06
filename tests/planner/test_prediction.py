from __future__ import annotations

import pytest

from autoquant.planner.budget import Budget
from autoquant.planner.measurement import Trial
from autoquant.planner.prediction import PartsModel, Predicted
from autoquant.search_spaces.scheme import Choice
from tests.planner.measurements import candidate, measured

# The hand-written measurements hold half of their peak as weights.
REFERENCE = measured(loss=0.0, peak_gb=8.0, latency_s=2.0)


def part(transformer: str = "none", text_encoder: str = "none", **figures: float) -> Trial:
    return Trial(
        number=0,
        candidate=candidate(transformer, text_encoder),
        measured=measured(**figures),  # type: ignore[arg-type]
    )


PARTS = [
    part("fake:int8", loss=0.3, peak_gb=6.0, latency_s=3.0),
    part("none", "fake:int8", loss=0.4, peak_gb=7.0, latency_s=2.5),
]


def test_savings_and_seconds_add_and_independent_losses_combine_as_their_norm() -> None:
    predicted = PartsModel(REFERENCE, PARTS).predict(candidate("fake:int8", "fake:int8"))
    assert predicted is not None
    assert predicted.loss == pytest.approx(0.5)
    assert predicted.latency_s == pytest.approx(3.5)
    # 4.0 GB of weights less 1.0 and 0.5; the largest activations beside them are 3.5.
    assert predicted.peak_gb == pytest.approx(2.5 + 3.5)


def test_what_was_not_measured_alone_is_not_predicted() -> None:
    assert PartsModel(REFERENCE, PARTS).predict(candidate("fake:int4")) is None


def test_a_failed_part_is_no_part() -> None:
    failed = Trial(number=0, candidate=candidate("fake:int4"), failure="crashed")
    assert PartsModel(REFERENCE, [failed]).predict(candidate("fake:int4")) is None


def test_the_exponent_follows_the_whole_candidates() -> None:
    losses = {"a": 0.1, "b": 0.2, "c": 0.3}
    parts = [part(f"fake:{n}", loss=loss) for n, loss in losses.items()]
    parts += [part("none", f"fake:{n}", loss=loss) for n, loss in losses.items()]
    adding = [part(f"fake:{n}", f"fake:{n}", loss=2 * loss) for n, loss in losses.items()]
    worst_only = [part(f"fake:{n}", f"fake:{n}", loss=1.2 * loss) for n, loss in losses.items()]
    assert PartsModel(REFERENCE, parts).exponent == 2.0
    assert PartsModel(REFERENCE, [*parts, *adding]).exponent == 1.0
    assert PartsModel(REFERENCE, [*parts, *worst_only]).exponent == 3.0


def test_a_part_that_another_beats_is_dropped_and_doing_nothing_is_kept() -> None:
    worse = part("fake:int4", loss=0.5, peak_gb=6.5, latency_s=4.0)
    parts = PartsModel(REFERENCE, [*PARTS, worse]).parts("transformer")
    assert [each.choice for each in parts] == [Choice(), Choice(scheme="fake:int8")]


def test_excess_is_the_sum_of_the_missed_shares() -> None:
    predicted = Predicted(loss=0.1, peak_gb=3.0, latency_s=2.0)
    assert predicted.excess(Budget.of(vram_gb=2, latency_s=4)) == pytest.approx(0.5)
    assert predicted.excess(Budget.of(vram_gb=3)) == 0.0
