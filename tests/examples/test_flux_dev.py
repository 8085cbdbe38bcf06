"""The FLUX.1-dev example, run as it is on a FluxPipeline of a few hundred kilobytes.

Its weights are random: what is checked is that the script runs and its plan loads, not the images.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from autoquant import Plan
from tests.families import classic

SCRIPT = Path(__file__).parents[2] / "examples" / "flux_dev.py"


def test_the_example_plans_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "tiny-flux"
    classic.flux().save_pretrained(model)
    small = ("--size", "32", "--steps", "1", "--trials", "2")
    card = ("--vram", "24", "--latency", "60", "--no-offload")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(model), *card, *small])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    out = tmp_path / "autoquant-out" / "flux-dev-24gb"
    plan = Plan.load_json(out / "plan.json")
    assert (plan.budget.vram_gb, plan.budget.latency_s) == (24, 60)
    assert plan.runtime.offload == "none"
    assert (out / "first.png").exists()
    assert "FluxPipeline" in capsys.readouterr().out
