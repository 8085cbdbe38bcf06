from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autoquant.metrics.images import save_png
from autoquant.planner import candidate_images
from autoquant.planner.candidate import Candidate
from autoquant.planner.candidate_images import FOLDER, folder_name, keep_images, other_candidates
from autoquant.planner.plan import Plan
from autoquant.search_spaces.scheme import Choice
from tests.planner.report.recorded_run import recorded_plan


def drawn(plan: Plan, directory: Path) -> int:
    """Write an image for each candidate as a run does; the bytes of one."""
    image = np.random.default_rng(0).random((1, 8, 8, 3), dtype=np.float32)
    for _, candidate in other_candidates(plan):
        [path] = save_png(image, directory / candidate.digest)
    return path.stat().st_size


def test_what_keeps_the_budget_comes_first_then_what_loses_least() -> None:
    plan = recorded_plan()
    assert [plan.pareto[place].measured.loss for place, _ in other_candidates(plan)] == [0.01, 0.12]
    fits = [point.model_copy(update={"feasible": True}) for point in plan.pareto[:1]]
    plan = plan.model_copy(update={"pareto": (*fits, *plan.pareto[1:])})
    assert [plan.pareto[place].measured.loss for place, _ in other_candidates(plan)] == [0.12, 0.01]


def test_images_are_kept_under_a_name_that_says_whose_they_are(tmp_path: Path) -> None:
    plan = recorded_plan()
    drawn(plan, tmp_path / "study")
    keep_images(plan, tmp_path / "study", tmp_path / "run")
    names = sorted(path.name.rpartition("-")[0] for path in (tmp_path / "run" / FOLDER).iterdir())
    assert names == ["transformer-bitsandbytes-nf4", "transformer-torchao-float8wo"]


def test_no_more_is_kept_than_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = recorded_plan()
    size = drawn(plan, tmp_path / "study")
    monkeypatch.setattr(candidate_images, "LARGEST_BYTES", 2 * size - 1)
    keep_images(plan, tmp_path / "study", tmp_path / "run")
    [kept] = (tmp_path / "run" / FOLDER).iterdir()
    assert kept.name.startswith("transformer-torchao-float8wo-")


def test_a_candidate_whose_images_are_gone_is_passed_over(tmp_path: Path) -> None:
    keep_images(recorded_plan(), tmp_path / "nothing", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_name_is_one_whatever_the_candidate_is_called() -> None:
    hostile = Candidate(components={"transformer": Choice(scheme="x:../../etc/\n" + "y" * 300)})
    name = folder_name(hostile)
    assert name == Path(name).name
    assert len(name) < 80
    other = Candidate(components={"transformer": Choice(scheme="x:../../etc/\n" + "y" * 301)})
    assert folder_name(other) != name
