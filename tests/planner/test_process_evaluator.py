"""Faults of one candidate are one failed trial, whatever they do to the process that measures."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from autoquant import InputError, WorkloadRequest
from autoquant.errors import CandidateFailed
from autoquant.planner import process_evaluator
from autoquant.planner.candidate import Candidate
from autoquant.planner.patience import Patience
from autoquant.planner.phases import PHASES
from autoquant.planner.preparation import prepare
from autoquant.planner.process_evaluator import ProcessEvaluator
from autoquant.planner.request import Request
from autoquant.search_spaces.scheme import Choice
from tests.planner.measurements import candidate

REPOSITORY = Path(__file__).parents[2]
SMALL = WorkloadRequest(prompts=("a red circle", "a blue square"), steps=1)
REQUEST = Request(pipeline="demo", workload=SMALL, metric="flip", download=False)
RECORDED_WORKER = "tests.planner.recorded_worker"
BRIEF = {**dict.fromkeys(PHASES, 60.0), "load": 2.0}


@pytest.fixture
def saboteur(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the saboteur where the planner and the worker, a process of its own, find it."""
    metadata = tmp_path / "saboteur-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: saboteur\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[autoquant.backends]\nsaboteur = tests.planner.saboteur:Saboteur\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    paths = [str(tmp_path), str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))


@pytest.mark.usefixtures("saboteur")
def test_a_crash_is_a_failure_and_measuring_goes_on_in_a_new_worker(tmp_path: Path) -> None:
    with ProcessEvaluator(REQUEST, tmp_path / "images") as evaluator:
        with pytest.raises(CandidateFailed, match="killed by SIGSEGV"):
            evaluator.answer(with_transformer("saboteur:crash"))
        answer = evaluator.answer(with_transformer("torchao:int8wo"))
    assert answer.measured.quantized_layers["transformer"] > 0


@pytest.mark.usefixtures("saboteur")
def test_what_leaves_the_process_alive_is_a_failure_too(tmp_path: Path) -> None:
    reasons = {
        "untouched": "hold as many",
        "nan": "is not finite",
        "memory": "out of memory: tried to allocate 80 GiB",
    }
    _, evaluator = prepare(REQUEST, tmp_path / "images")
    for fault, reason in reasons.items():
        with pytest.raises(CandidateFailed, match=reason):
            evaluator.answer(with_transformer(f"saboteur:{fault}"))
    answer = evaluator.answer(with_transformer("torchao:int8wo"))
    assert answer.measured.quantized_layers["transformer"] > 0


def test_a_hang_and_an_error_of_ours_are_failures_and_measuring_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process_evaluator, "Patience", partial(Patience, least_s=BRIEF))
    hang, broken = tmp_path / "hang", candidate("fake:int6")
    hang.touch()
    (tmp_path / f"bug-{broken.digest}").touch()
    with ProcessEvaluator(
        recorded(tmp_path), tmp_path / "images", worker=RECORDED_WORKER
    ) as evaluator:
        with pytest.raises(CandidateFailed, match="no answer within 2 s in the phase 'load'"):
            evaluator.answer(candidate("fake:int8"))
        hang.unlink()
        with pytest.raises(CandidateFailed, match=r"ended with status 1: .*KeyError"):
            evaluator.answer(broken)
        assert evaluator.answer(candidate("fake:int4")).measured.loss > 0


def recorded(directory: Path) -> Request:
    return Request(pipeline="recorded", clip_model=str(directory))


def with_transformer(scheme: str) -> Candidate:
    return Candidate(components={"transformer": Choice(scheme=scheme)})


def test_what_is_wrong_with_the_request_is_the_same_error_as_in_this_process(
    tmp_path: Path,
) -> None:
    (tmp_path / "wrong").write_text("FluxPipeline takes no colour.")
    with pytest.raises(InputError, match="takes no colour"):
        ProcessEvaluator(recorded(tmp_path), tmp_path / "images", worker=RECORDED_WORKER)
