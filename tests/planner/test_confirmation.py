from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autoquant import demo
from autoquant.errors import CandidateFailed
from autoquant.metrics.score import MetricScore
from autoquant.metrics.statistics import mean_interval
from autoquant.planner import timed_workload
from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.confirmation import confirm, unseen_workload
from autoquant.planner.measurement import Comparison, Trial
from autoquant.planner.parameters import unquantized
from autoquant.planner.preparation import prepare
from autoquant.planner.request import Request
from autoquant.planner.selection import choose
from autoquant.planner.workload import DEFAULT_PROMPTS, UNSEEN_PROMPTS, Workload, WorkloadRequest
from autoquant.search_spaces.scheme import Choice
from tests.planner.measurements import candidate, trial

UNSEEN = Workload(prompts=("a", "b", "c", "d"), seeds=(1,), height=64, width=64, steps=4)
CALM = (0.10, 0.11, 0.09, 0.10)
FAR = (0.30, 0.33, 0.29, 0.31)


def score(values: tuple[float, ...]) -> MetricScore:
    mean, low, high = mean_interval(values)
    worst = max(values)
    return MetricScore(
        mean=mean,
        low=low,
        high=high,
        worst=worst,
        worst_index=values.index(worst),
        per_image=values,
    )


class OnNewPrompts:
    """Losses of each transformer scheme on the prompts that the search never saw."""

    def __init__(self, clip: tuple[float, ...] | None = None, **losses: tuple[float, ...]) -> None:
        self._losses = losses
        self._clip = clip
        self.asked: list[str] = []

    def compare(
        self, candidate: Candidate, workload: Workload, *, timed: bool = True
    ) -> Comparison:
        name = candidate.components["transformer"].scheme.removeprefix("fake:")
        self.asked.append(name)
        if name not in self._losses:
            raise CandidateFailed("Image 0 is not finite.")
        values = self._losses[name]
        fidelity = {"flip": score(values)}
        if self._clip is not None:
            fidelity["clip_delta"] = score(self._clip)
        return Comparison(
            component_gb={},
            loss=sum(values) / 4,
            fidelity=fidelity,
            metric="flip",
            noise_floor=0.0,
        )


def trials() -> list[Trial]:
    return [
        trial(0, candidate(), loss=0.0, peak_gb=9.0),
        trial(1, candidate("fake:a"), loss=0.1, per_image=CALM, peak_gb=1.0),
        trial(2, candidate("fake:b"), loss=0.2, per_image=(0.2, 0.21, 0.19, 0.2), peak_gb=1.0),
        trial(3, candidate("fake:c"), loss=0.4, per_image=(0.4, 0.41, 0.39, 0.4), peak_gb=1.0),
    ]


TIGHT = Budget.of(vram_gb=2)


def test_a_winner_whose_loss_is_the_same_elsewhere_holds_up() -> None:
    selection = choose(trials(), TIGHT)
    drawn = OnNewPrompts(a=CALM)
    confirmed, found = confirm(selection, trials(), TIGHT, drawn, UNSEEN)
    assert confirmed == selection
    assert found is not None
    assert found.holds
    assert found.found is not None
    assert (found.found.mean, found.found.worst) == pytest.approx((0.10, 0.11))
    assert "Holds up on 4 images of prompts and seeds that the search never saw" in found.sentence


def test_where_the_winner_does_not_hold_up_the_next_one_is_chosen_and_both_are_named() -> None:
    drawn = OnNewPrompts(a=FAR, b=(0.2, 0.2, 0.2, 0.22))
    confirmed, found = confirm(choose(trials(), TIGHT), trials(), TIGHT, drawn, UNSEEN)
    assert drawn.asked == ["a", "b"]
    assert confirmed.chosen.number == 2
    assert confirmed.chosen in confirmed.pareto
    assert found is not None
    assert found.holds
    assert "fake:a was better in the search: flip loss 0.307" in found.sentence
    assert "lies above the 0.1 (" in found.sentence


def test_where_none_holds_up_the_first_one_is_kept_and_that_is_said() -> None:
    selection = choose(trials(), TIGHT)
    confirmed, found = confirm(selection, trials(), TIGHT, OnNewPrompts(a=FAR), UNSEEN)
    assert confirmed == selection
    assert found is not None
    assert not found.holds
    assert found.sentence.startswith("Does not hold up on 4 images")


def test_a_limit_on_the_loss_must_hold_elsewhere_too() -> None:
    budget = Budget.of(vram_gb=2, max_loss=0.105)
    drawn = OnNewPrompts(a=(0.10, 0.11, 0.12, 0.11))
    _, found = confirm(choose(trials(), budget), trials(), budget, drawn, UNSEEN)
    assert found is not None
    assert found.reasons == ("its loss of 0.11 misses the limit of 0.105",)


def test_an_encoder_that_lost_the_prompt_is_found_whatever_the_distance() -> None:
    drawn = OnNewPrompts(clip=(-4.0, -5.0, -6.0, -5.0), a=CALM)
    _, found = confirm(choose(trials(), TIGHT), trials()[:2], TIGHT, drawn, UNSEEN)
    assert found is not None
    assert "follow their prompts less: CLIP falls by 5 points" in found.sentence


def test_a_choice_that_changes_nothing_needs_no_confirmation() -> None:
    ample = Budget.of(vram_gb=100)
    drawn = OnNewPrompts()
    assert confirm(choose(trials(), ample), trials(), ample, drawn, UNSEEN)[1] is None
    assert drawn.asked == []


def test_the_unseen_prompts_are_unseen_and_some_render_text() -> None:
    searched = Workload(
        prompts=(*DEFAULT_PROMPTS, UNSEEN_PROMPTS[0]), seeds=(0, 1), height=8, width=8, steps=1
    )
    unseen = unseen_workload(searched, UNSEEN_PROMPTS)
    assert unseen.seeds == (2,)
    assert not set(unseen.prompts) & set(searched.prompts)
    assert len(unseen.prompts) == 8
    assert sum('"' in prompt for prompt in unseen.prompts) >= 2
    one = searched.model_copy(update={"prompts": ("a red circle",), "seeds": (0,)})
    assert unseen_workload(one, UNSEEN_PROMPTS).prompts == UNSEEN_PROMPTS[:2]
    assert not set(demo.UNSEEN_PROMPTS) & set(demo.WORKLOAD["prompts"])


def test_a_compiled_winner_is_compiled_to_be_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    real = timed_workload.compile_denoisers

    def noted(pipeline: Any, compile: str) -> None:
        real(pipeline, compile)
        compiled.append(compile)

    monkeypatch.setattr(timed_workload, "compile_denoisers", noted)
    few = WorkloadRequest(prompts=tuple(demo.WORKLOAD["prompts"][:1]), steps=1)
    request = Request(
        pipeline="demo", workload=few, metric="flip", backends=("torchao:int8wo",), download=False
    )
    prepared, evaluator = prepare(request, tmp_path)
    nothing = unquantized(prepared.space, prepared.runtime)
    regional = nothing.model_copy(update={"runtime": Runtime(compile="regional")})
    drawn = evaluator.compare(regional, unseen_workload(prepared.workload, demo.UNSEEN_PROMPTS))
    assert compiled == ["regional"]
    assert drawn.compile_s > 0
    assert len(drawn.seconds) == 1  # of two calls the first one compiles
    assert drawn.loss < 0.01


def test_another_workload_is_compared_with_its_own_reference(tmp_path: Path) -> None:
    few = WorkloadRequest(prompts=tuple(demo.WORKLOAD["prompts"][:1]), steps=1)
    scheme = "torchao:int8wo"
    request = Request(
        pipeline="demo", workload=few, metric="flip", backends=(scheme,), download=False
    )
    prepared, evaluator = prepare(request, tmp_path)
    nothing = unquantized(prepared.space, prepared.runtime)
    unseen = unseen_workload(prepared.workload, demo.UNSEEN_PROMPTS)
    same = evaluator.compare(nothing, unseen)
    assert same.fidelity["flip"].per_image == (0.0, 0.0)
    assert len(same.seconds) == 1  # of two calls the first one warms up
    both = {**nothing.components, "transformer": Choice(scheme=scheme)}
    other = evaluator.compare(nothing.model_copy(update={"components": both}), unseen)
    assert 0 < other.fidelity["flip"].mean < 0.1
    assert other.component_gb["transformer"] < same.component_gb["transformer"]
