from __future__ import annotations

import pytest

from autoquant.errors import CandidateFailed
from autoquant.metrics.latency import summarize
from autoquant.metrics.score import MetricScore
from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate
from autoquant.planner.measurement import Comparison, Trial
from autoquant.planner.recheck import further_seeds, near_limits, recheck
from autoquant.planner.selection import choose
from autoquant.planner.workload import Workload
from tests.planner.measurements import trial

WORKLOAD = Workload(prompts=("a", "b"), seeds=(0, 1), height=64, width=64, steps=4)


class Again:
    """The same losses and seconds whatever is asked."""

    def __init__(self, losses: tuple[float, ...] = (), seconds: tuple[float, ...] = ()) -> None:
        self.losses, self.seconds = losses, seconds
        self.asked: list[Candidate] = []

    def compare(self, candidate: Candidate, workload: Workload) -> Comparison:
        self.asked.append(candidate)
        assert workload.seeds == (2, 3)
        if not self.losses:
            raise CandidateFailed("Image 1 is black.")
        mean, worst = sum(self.losses) / len(self.losses), max(self.losses)
        score = MetricScore(
            mean=mean,
            low=min(self.losses),
            high=worst,
            worst=worst,
            worst_index=self.losses.index(worst),
            per_image=self.losses,
        )
        return Comparison(
            component_gb={},
            loss=mean,
            fidelity={"flip": score},
            metric="flip",
            noise_floor=0.0,
            seconds=self.seconds,
        )


def timed(number: int, seconds: tuple[float, ...], loss: float) -> Trial:
    made = trial(number, loss=loss)
    assert made.measured is not None
    known = made.measured.model_copy(update={"latency_s": summarize(seconds)})
    return made.model_copy(update={"measured": known})


def test_a_choice_that_keeps_a_limit_by_less_than_its_spread_is_drawn_again() -> None:
    trials = [timed(0, (0.8, 0.9, 1.1, 1.3), loss=0.1), timed(1, (0.5, 0.5, 0.5, 0.5), loss=0.5)]
    budget = Budget.of(latency_s=1.05)
    assert near_limits(trials[0].measured, budget) == ("latency_s",)  # type: ignore[arg-type]
    again = Again(losses=(0.1, 0.1, 0.1, 0.1), seconds=(1.2, 1.3, 1.2))
    rechecked = recheck(trials, budget, again, WORKLOAD)
    assert again.asked == [trials[0].candidate]
    figures = rechecked[0].measured
    assert figures is not None
    assert (figures.latency_s.runs, figures.further_images) == (7, 4)
    assert figures.latency_s.median == 1.2
    assert choose(rechecked, budget).chosen.number == 1


def test_what_would_be_better_and_misses_by_less_than_its_spread_gets_a_second_chance() -> None:
    trials = [
        timed(0, (0.9, 1.0, 1.2, 1.3), loss=0.1),
        timed(1, (0.5, 0.5, 0.5, 0.5), loss=0.5),
        timed(2, (5.0, 5.0, 5.0, 5.0), loss=0.0),
    ]
    budget = Budget.of(latency_s=1.05)
    again = Again(losses=(0.1, 0.1, 0.1, 0.1), seconds=(0.9, 0.9, 0.9))
    rechecked = recheck(trials, budget, again, WORKLOAD)
    assert again.asked == [trials[0].candidate]
    assert choose(trials, budget).chosen.number == 1
    assert choose(rechecked, budget).chosen.number == 0


def test_a_limit_on_the_loss_is_decided_on_all_images() -> None:
    near = trial(0, loss=0.1, per_image=(0.05, 0.15, 0.12, 0.08))
    budget = Budget.of(max_loss=0.101)
    again = Again(losses=(0.2, 0.2, 0.2, 0.2))
    figures = recheck([near], budget, again, WORKLOAD)[0].measured
    assert figures is not None
    assert figures.loss == pytest.approx(0.15)
    assert figures.latency_s == near.measured.latency_s  # type: ignore[union-attr]
    assert len(again.asked) == 1


def test_a_decision_that_is_clear_is_not_measured_again() -> None:
    again = Again()
    trials = (timed(0, (0.5, 0.6, 0.7), loss=0.1),)
    assert recheck(trials, Budget.of(latency_s=2, max_loss=0.5), again, WORKLOAD) == trials
    assert again.asked == []


def test_what_cannot_be_drawn_again_has_failed() -> None:
    trials = [timed(0, (0.8, 0.9, 1.1, 1.3), loss=0.1)]
    (failed,) = recheck(trials, Budget.of(latency_s=1.05), Again(), WORKLOAD)
    assert failed.measured is None
    assert failed.failure == "Image 1 is black."


def test_further_seeds_are_as_many_and_new() -> None:
    assert further_seeds(WORKLOAD).seeds == (2, 3)
    assert further_seeds(WORKLOAD).prompts == WORKLOAD.prompts
