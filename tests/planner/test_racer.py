"""A real candidate of the demo pipeline in a race."""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree

import pytest

from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate
from autoquant.planner.device_evaluator import DeviceEvaluator
from autoquant.planner.preparation import prepare
from autoquant.planner.racing import Race, run_of
from autoquant.planner.request import Request
from autoquant.planner.workload import WorkloadRequest
from autoquant.search_spaces.scheme import Choice

PROMPTS = ("a red circle", "two blue squares", "a green cross", "a yellow star", "a red square")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def evaluator(images: Path) -> DeviceEvaluator:
    workload = WorkloadRequest(prompts=PROMPTS, steps=1)
    request = Request(pipeline="demo", metric="flip", download=False, workload=workload)
    return prepare(request, images)[1]


def test_a_stopped_candidate_has_drawn_the_first_images_of_a_whole_one(
    evaluator: DeviceEvaluator, images: Path
) -> None:
    int4 = Candidate(components={"transformer": Choice(scheme="gguf:Q4_0")})
    whole = evaluator.answer(int4)
    drawn = {path.name: path.read_bytes() for path in (images / int4.digest).iterdir()}
    assert sorted(drawn) == [f"{number:04d}.png" for number in range(5)]
    race = Race(
        budget=Budget.of(vram_gb=0.9 * whole.measured.peak_gb),
        best=None,
        hardness=run_of(whole.measured).losses,
    )
    rmtree(images / int4.digest)
    answer = evaluator.answer(int4, race)
    measured = answer.measured
    assert measured.stopped == "it needs more memory than the limit"
    assert measured.undrawn_images == 2
    assert measured.latency_s.runs == 2
    assert measured.peak_gb == whole.measured.peak_gb
    # It is its own measure of how hard the others are, so the estimate is right.
    assert measured.loss == pytest.approx(whole.measured.loss)
    assert measured.fidelity["flip"].per_image == whole.measured.fidelity["flip"].per_image[:3]
    assert len(measured.fidelity["ssim"].per_image) == 3
    assert answer.components == whole.components
    again = {path.name: path.read_bytes() for path in (images / int4.digest).iterdir()}
    assert again == {name: drawn[name] for name in sorted(drawn)[:3]}


def test_a_candidate_that_may_still_win_is_drawn_whole(evaluator: DeviceEvaluator) -> None:
    int8 = Candidate(components={"text_encoder": Choice(scheme="torchao:int8wo")})
    race = Race(budget=Budget.of(vram_gb=1), best=None, hardness=(0.1,) * 5)
    measured = evaluator.answer(int8, race).measured
    assert measured.is_whole
    assert measured.stopped == ""
    assert measured.latency_s.runs == 4
