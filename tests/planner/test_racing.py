from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoquant.planner.budget import Budget
from autoquant.planner.evaluator import RecordedEvaluator
from autoquant.planner.measurement import Measured
from autoquant.planner.racing import Race, Run, is_enough, race_for, run_of, stopped
from autoquant.planner.search import search
from autoquant.planner.search_settings import SearchSettings
from autoquant.planner.selection import choose, is_feasible
from autoquant.search_spaces.space import ComponentSpace, SearchSpace
from tests.planner.measurements import candidate, measured, trial

BEST = (0.010, 0.040, 0.020, 0.030, 0.015, 0.035, 0.025, 0.025)
HARD = (0.1, 0.4, 0.2, 0.3, 0.15, 0.35, 0.25, 0.25)


def a_race(hardness: tuple[float, ...] = HARD, **limits: Any) -> Race:
    best = run(losses=BEST, seconds=(1.0, 1.1, 0.9))
    return Race(budget=Budget.of(**limits), best=best, hardness=hardness)


def run(**known: Any) -> Run:
    usual = {"seconds": (1.0, 1.0), "peak_gb": 4.0, "load_peak_gb": 5.0, "noise_floor": 0.0}
    return Run.model_validate(usual | known)


def times(factor: float, images: int) -> tuple[float, ...]:
    return tuple(factor * loss for loss in BEST[:images])


def test_nothing_is_decided_on_two_images() -> None:
    race = a_race(vram_gb=3.0)
    assert race.verdict(run(losses=times(9, 2))) is None
    assert race.verdict(run(losses=times(9, 3))) is not None


@pytest.mark.parametrize(
    ("limits", "known", "verdict"),
    [
        ({"vram_gb": 3.9}, {}, "it needs more memory than the limit"),
        ({"load_peak_gb": 4.9}, {}, "it needs more memory than the limit while loading"),
        ({"latency_s": 0.9}, {}, "each call took longer than the limit"),
        ({"latency_s": 1.0}, {"seconds": (0.99, 1.8)}, None),
        ({"latency_s": 0.9}, {"seconds": (1.8,)}, None),
        ({"latency_s": 1.1, "calls_per_session": 10}, {"compile_s": 2.0}, "each call took longer"),
        ({"max_loss": 0.001}, {}, "its images lose more than the limit"),
        ({"max_loss": 0.1}, {}, None),
        ({"vram_gb": 4.0, "latency_s": 1.0, "load_peak_gb": 5.0}, {}, None),
    ],
)
def test_what_misses_a_limit_for_certain_is_stopped(
    limits: dict[str, float], known: dict[str, Any], verdict: str | None
) -> None:
    found = a_race(**limits).verdict(run(losses=times(1, 3), **known))
    assert bool(found) == bool(verdict)
    assert (found or "").startswith(verdict or "")


@pytest.mark.parametrize(
    ("losses", "is_stopped"),
    [
        (times(3, 3), True),
        (times(0.9, 3), False),
        # Worse on each, but by very different factors: three images do not tell.
        ((0.011, 0.12, 0.021), False),
        # Much worse on one that counts little, better on the others.
        ((0.05, 0.030, 0.015), False),
        ((0.0, 0.0, 0.0), False),
    ],
)
def test_what_clearly_loses_more_than_the_best_is_stopped(
    losses: tuple[float, ...], is_stopped: bool
) -> None:
    verdict = a_race(vram_gb=8).verdict(run(losses=losses))
    assert verdict == ("its images lose more than those of the best one" if is_stopped else None)


def test_what_loses_no_more_than_the_noise_goes_on() -> None:
    race = a_race(vram_gb=8)
    assert race.verdict(run(losses=times(3, 3), noise_floor=0.02)) is not None
    assert race.verdict(run(losses=times(3, 3), noise_floor=0.08)) is None


@pytest.mark.parametrize(
    ("objective", "known", "verdict"),
    [
        ("latency", {"seconds": (1.2, 1.3)}, "it is slower than the best one"),
        ("latency", {"seconds": (1.04, 1.3)}, None),
        ("vram", {"peak_gb": 4.1}, "it needs more memory than the best one"),
        ("vram", {"peak_gb": 4.01}, None),
    ],
)
def test_another_objective_has_another_race(
    objective: str, known: dict[str, Any], verdict: str | None
) -> None:
    race = a_race(max_loss=1.0, objective=objective)
    assert race.verdict(run(losses=times(3, 3), **known)) == verdict


def test_images_that_were_not_drawn_lose_as_much_as_they_are_hard() -> None:
    race = a_race()
    whole = sum(BEST) / len(BEST)
    assert race.whole_loss(BEST[:3]) == pytest.approx(whole)  # as hard as for the other
    assert race.whole_loss(BEST) == pytest.approx(whole)
    assert a_race(hardness=(0.1,) * 8).whole_loss(BEST[:2]) == pytest.approx(0.025)


def test_the_first_candidate_that_loses_is_drawn_whole() -> None:
    budget = Budget.of(vram_gb=2)
    reference = trial(0, candidate(), peak_gb=4)
    assert race_for([reference], budget) is None
    misses = trial(1, candidate("fake:int8"), peak_gb=3, per_image=HARD, loss=0.25)
    fits = trial(2, candidate("fake:int4"), peak_gb=1, per_image=BEST, loss=0.025)
    beaten = race_for([reference, misses], budget)
    assert beaten is not None
    assert (beaten.best, beaten.hardness) == (None, HARD)
    race = race_for([reference, misses, fits], budget)
    assert race is not None
    assert (race.best, race.hardness) == (run_of(fits.measured), BEST)  # type: ignore[arg-type]


def test_where_the_reference_fits_whatever_loses_is_stopped() -> None:
    budget = Budget.of(vram_gb=8)
    other = trial(1, candidate("fake:int8"), per_image=HARD, loss=0.25)
    race = race_for([trial(0, candidate(), per_image=(0.0,) * 8), other], budget)
    assert race is not None
    assert race.verdict(run(losses=BEST[:3])) is not None


def test_a_stopped_measurement_says_so_and_answers_no_easier_race() -> None:
    race = a_race(vram_gb=2.0)
    cut = stopped(measured(per_image=times(3, 8), loss=0.075, peak_gb=2.5), race, 1)
    assert cut.stopped == "it needs more memory than the limit"
    assert (cut.undrawn_images, cut.is_whole) == (5, False)
    assert cut.fidelity["flip"].per_image == pytest.approx(times(3, 3))
    assert cut.loss == pytest.approx(0.075)
    assert cut.latency_s.runs == 2
    assert is_enough(cut, race)
    assert not is_enough(cut, None)
    assert not is_enough(cut, a_race(vram_gb=3.0, max_loss=1.0, objective="latency"))
    assert is_enough(measured(per_image=BEST), None)


@given(
    losses=st.lists(st.floats(0, 1), min_size=8, max_size=8),
    peak_gb=st.floats(0.1, 8),
    latency_s=st.floats(0.1, 3),
    a_call=st.integers(1, 8),
)
@settings(max_examples=60, deadline=None)
def test_what_keeps_the_limits_and_beats_the_best_is_always_drawn_whole(
    losses: list[float], peak_gb: float, latency_s: float, a_call: int
) -> None:
    race = a_race(vram_gb=4.0, latency_s=2.0)
    better = measured(
        per_image=[min(mine, best) for mine, best in zip(losses, BEST, strict=True)],
        peak_gb=peak_gb,
        latency_s=latency_s,
    )
    cut = stopped(better, race, a_call)
    assert cut.is_whole or not is_feasible(better, race.budget)


BITS = {"none": 16, "fake:int8": 8, "fake:int6": 6, "fake:int4": 4, "fake:int3": 3, "fake:int2": 2}
SPACE = SearchSpace(
    components={
        name: ComponentSpace(schemes=tuple(BITS)) for name in ("transformer", "text_encoder")
    }
)


def textbook(transformer: str, encoder: str) -> Measured:
    lost = 2.0 ** -BITS[transformer] + 0.1 * 2.0 ** -BITS[encoder] - 1.1 * 2.0**-16
    held = {"transformer": BITS[transformer] / 4, "text_encoder": BITS[encoder] / 16}
    return measured(
        per_image=[lost * share for share in HARD],
        loss=lost * sum(HARD) / len(HARD),
        peak_gb=sum(held.values()) + 0.5,
        component_gb=held,
        weights_gb=sum(held.values()),
    )


TABLE = {candidate(*pair).key: textbook(*pair) for pair in itertools.product(BITS, BITS)}


@pytest.mark.parametrize("vram_gb", [4.0, 2.6, 1.8])
def test_a_search_that_stops_early_draws_less_and_chooses_the_same(vram_gb: float) -> None:
    budget = Budget.of(vram_gb=vram_gb)

    def searched(*, stop_early: bool) -> tuple[str, int]:
        drawn = SearchSettings(trials=36, stop_early=stop_early)
        trials = search(RecordedEvaluator(TABLE), SPACE, budget, drawn).trials
        chosen = choose(trials, budget).chosen
        assert chosen.measured is not None
        assert chosen.measured.is_whole
        images = sum(8 - it.measured.undrawn_images for it in trials if it.measured)
        return chosen.candidate.label, images

    (early, drawn), (whole, all_drawn) = searched(stop_early=True), searched(stop_early=False)
    assert early == whole
    assert drawn < all_drawn
