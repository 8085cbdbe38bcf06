"""Faults of one candidate are one failed trial, whatever they do to the process that measures."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from autoquant import InputError, WorkloadRequest, autoquant
from autoquant.errors import CandidateFailed
from autoquant.planner import process_evaluator
from autoquant.planner.candidate import Candidate
from autoquant.planner.patience import Patience
from autoquant.planner.phases import PHASES
from autoquant.planner.process_evaluator import ProcessEvaluator
from autoquant.planner.request import Request
from autoquant.search_spaces.scheme import Choice

REPOSITORY = Path(__file__).parents[2]
SMALL = WorkloadRequest(prompts=("a red circle", "a blue square"), steps=1)


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
def test_a_search_over_faults_ends_with_a_plan_and_names_them() -> None:
    plan = autoquant(
        "demo",
        vram_gb=0.007,
        workload=SMALL,
        trials=5,
        confirm=False,
        metric="flip",
        backends=["torchao:int8wo", "saboteur:bug16", "saboteur:crash11"],
    )
    assert plan.components["transformer"].scheme == "torchao:int8wo"
    assert plan.search.failures
    for failure in plan.search.failures:
        assert "KeyError" in failure.reason or "killed by SIGSEGV" in failure.reason


@pytest.mark.usefixtures("saboteur")
def test_every_fault_is_a_failure_with_its_reason_and_measuring_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    short = partial(Patience, factor=0.0, least_s=dict.fromkeys(PHASES, 10.0))
    monkeypatch.setattr(process_evaluator, "Patience", short)
    request = Request(pipeline="demo", workload=SMALL, metric="flip", download=False)
    reasons = {
        "crash11": "killed by SIGSEGV",
        "hang12": "no answer within 10 s in the phase 'load'",
        "untouched13": "hold as many",
        "nan14": "is not finite",
        "memory15": "out of memory: tried to allocate 80 GiB",
        "bug16": "KeyError",
    }
    with ProcessEvaluator(request, tmp_path / "images") as evaluator:
        for fault, reason in reasons.items():
            with pytest.raises(CandidateFailed, match=reason):
                evaluator.answer(with_transformer(f"saboteur:{fault}"))
        answer = evaluator.answer(with_transformer("torchao:int8wo"))
    assert answer.measured.quantized_layers["transformer"] > 0


def with_transformer(scheme: str) -> Candidate:
    return Candidate(components={"transformer": Choice(scheme=scheme)})


def test_what_is_wrong_with_the_request_is_the_same_error_as_in_this_process() -> None:
    with pytest.raises(InputError, match="'flop' is unknown"):
        autoquant("demo", vram_gb=1, workload=SMALL, metric="flop")
