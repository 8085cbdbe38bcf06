"""The FLUX.1-dev examples, run as they are on a FluxPipeline of a few hundred kilobytes.

Its weights are random: what is checked is that the script runs and its plan loads, not the images.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from autoquant import Plan
from tests.families import classic

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def tiny_flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny-flux")
    classic.flux().save_pretrained(directory)
    return directory


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("flux_dev_*gb.py")), ids=lambda p: p.stem)
def test_the_example_plans_and_draws(
    script: Path,
    tiny_flux: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    small = ("--size", "32", "--steps", "1", "--trials", "2")
    monkeypatch.setattr(sys, "argv", [str(script), str(tiny_flux), "--out", str(out), *small])
    runpy.run_path(str(script), run_name="__main__")
    plan = Plan.load_json(out / "plan.json")
    assert plan.budget.vram_gb == int(script.stem.removesuffix("gb").rpartition("_")[2])
    assert (out / "first.png").exists()
    assert "FluxPipeline" in capsys.readouterr().out
