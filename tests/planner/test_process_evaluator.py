"""Faults of one candidate are one failed trial, whatever they do to the process that measures."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from autoquant import InputError, WorkloadRequest, autoquant
from autoquant.planner import process_evaluator
from autoquant.planner.patience import Patience
from autoquant.planner.phases import PHASES

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
def test_every_fault_is_a_failed_trial_with_its_reason_and_the_search_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short = partial(Patience, factor=0.0, least_s=dict.fromkeys(PHASES, 15.0))
    monkeypatch.setattr(process_evaluator, "Patience", short)
    plan = autoquant(
        "demo",
        vram_gb=0.007,
        workload=SMALL,
        trials=8,
        metric="flip",
        backends=["torchao:int8wo", "saboteur"],
    )
    assert plan.components["transformer"].scheme == "torchao:int8wo"
    reasons = {
        failure.components["transformer"].scheme.removeprefix("saboteur:"): failure.reason
        for failure in plan.search.failures
    }
    assert "killed by SIGSEGV" in reasons["crash11"]
    assert "no answer within 15 s in the phase 'load'" in reasons["hang12"]
    assert "hold as many" in reasons["untouched13"]
    assert "is not finite" in reasons["nan14"]
    assert "out of memory: tried to allocate 80 GiB" in reasons["memory15"]
    assert "KeyError" in reasons["bug16"]


def test_what_is_wrong_with_the_request_is_the_same_error_as_in_this_process() -> None:
    with pytest.raises(InputError, match="'flop' is unknown"):
        autoquant("demo", vram_gb=1, workload=SMALL, metric="flop")
