from __future__ import annotations

from dataclasses import replace

import pytest
from diffusers import DiffusionPipeline

from autoquant import Plan, autoquant
from autoquant.errors import CandidateFailed
from autoquant.metrics.latency import summarize
from autoquant.metrics.score import MetricScore
from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate
from autoquant.planner.measurement import Comparison, Trial
from autoquant.planner.recheck import further_seeds, near_limits, recheck, rechecks
from autoquant.planner.selection import choose
from autoquant.planner.workload import Workload
from tests.planner.conftest import FEW
from tests.planner.measurements import trial

WORKLOAD = Workload(prompts=("a", "b"), seeds=(0, 1), height=64, width=64, steps=4)


class Again:
    """The same losses and seconds whatever is asked."""

    def __init__(self, losses: tuple[float, ...] = (), seconds: tuple[float, ...] = ()) -> None:
        self.losses, self.seconds = losses, seconds
        self.asked: list[Candidate] = []

    def compare(
        self, candidate: Candidate, workload: Workload, *, timed: bool = True
    ) -> Comparison:
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


def test_what_was_measured_again_is_told(demo_pipeline: DiffusionPipeline) -> None:
    phases: list[str] = []
    plan = autoquant(
        demo_pipeline,
        max_loss=0.028,
        objective="vram",
        workload=replace(FEW, height=64, width=64),
        backends=("bitsandbytes:nf4",),
        trials=2,
        metric="flip",
        download=False,
        on_progress=lambda progress: phases.append(progress.phase),
    )
    assert "recheck" in phases
    (again,) = plan.search.rechecks
    (point,) = [it for it in plan.pareto if it.measured.further_images]
    assert again.further_images == 3
    assert again.limits == ("max_loss",)
    assert again.loss == point.measured.loss != again.loss_before
    assert again.keeps == point.feasible == point.chosen
    assert "Measured again, as the loss limit lay within its spread" in str(plan)
    assert Plan.from_json(plan.to_json()) == plan


def test_what_was_measured_again_is_told_with_the_limit_that_it_was_for() -> None:
    before = [timed(0, (0.8, 0.9, 1.1, 1.3), loss=0.1)]
    budget = Budget.of(latency_s=1.05)
    after = recheck(before, budget, Again(losses=(0.1,) * 4, seconds=(1.2, 1.3, 1.2)), WORKLOAD)
    (again,) = rechecks(before, after, budget)
    assert not again.keeps
    assert "1.00 s became 1.20 s with 4 images of further seeds" in again.sentence
    (failed,) = rechecks(before, recheck(before, budget, Again(), WORKLOAD), budget)
    assert failed.sentence.endswith("Image 1 is black.")
