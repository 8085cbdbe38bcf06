"""The main job on a card: doctor, search, plan, and the script that it hands over."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from autoquant import Plan, WorkloadRequest, autoquant, demo
from autoquant.planner.doctor import diagnose

pytestmark = pytest.mark.gpu

FEW = WorkloadRequest(prompts=tuple(demo.WORKLOAD["prompts"][:3]), steps=2)
TRIALS = 10


def test_doctor_finds_the_table_true(card: torch.device, record_property: Any) -> None:
    diagnosis = diagnose(str(card))
    states = [finding.state for finding in diagnosis.findings]
    for state in ("works", "fails", "not installed"):
        record_property(state, states.count(state))
    # A note says where the trial and what autoquant believes differ.
    surprises = {
        finding.scheme: finding.note or finding.reason
        for finding in diagnosis.findings
        if (finding.state == "works" and finding.note)
        or (finding.state == "fails" and not finding.note)
    }
    assert not surprises
    assert "works" in states


@pytest.fixture(scope="module")
def planned(
    chosen_card: torch.device, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Plan, Path]:
    out = tmp_path_factory.mktemp("card") / "plan"
    plan = autoquant(
        "demo",
        vram_gb=4,
        workload=FEW,
        trials=TRIALS,
        objective="vram",
        max_loss=0.2,
        metric="flip",
        device=str(chosen_card),
        cache=False,
        out=out,
    )
    return plan, out


def test_a_search_ends_with_a_plan(planned: tuple[Plan, Path], record_property: Any) -> None:
    plan, out = planned
    measured, reference = plan.measured, plan.reference
    record_property("trials", plan.search.trials)
    record_property("failed", plan.search.failed)
    record_property("peak MB", 1024 * measured.peak_gb)
    record_property("reference's", 1024 * reference.peak_gb)
    record_property("loss", measured.loss)
    kind = plan.device.kind
    assert measured.counter == ("cpu.tracked_tensors" if kind == "cpu" else f"{kind}.reserved")
    assert measured.peak_gb <= reference.peak_gb
    assert measured.weights_gb <= reference.weights_gb
    assert measured.loss <= 0.2
    events = [json.loads(line) for line in (out / "study/events.jsonl").read_text().splitlines()]
    ended = [event for event in events if event["event"] == "worker ended"]
    behind = [event["failure"] for event in ended if "left" in event["failure"]]
    assert not behind


def test_the_script_loads_what_was_planned(
    planned: tuple[Plan, Path], record_property: Any
) -> None:
    plan, out = planned
    done = subprocess.run(
        [sys.executable, "load_pipeline.py"], cwd=out, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

    def figures(what: str) -> tuple[float, float]:
        [(ours, wanted)] = re.findall(rf"{what}: ([\d.]+) GB, planned ([\d.]+)", done.stdout)
        return float(ours), float(wanted)

    weights, wanted = figures("weights")
    assert weights == pytest.approx(wanted, rel=1e-3)
    difference = int(re.findall(r"largest pixel difference: (\d+)", done.stdout)[0])
    record_property("pixels differ by", f"{difference} of 255")
    assert difference <= 2
    if plan.device.kind != "cpu":
        peak, planned_peak = figures("peak reserved")
        assert peak == pytest.approx(planned_peak, rel=0.25, abs=0.05)
