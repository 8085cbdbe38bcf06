"""Searches that are killed go on where they stood, and end as if nothing had happened."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import psutil
import pytest

from autoquant.planner.events import EventLog
from autoquant.planner.measurement_store import MeasurementStore
from autoquant.planner.process_evaluator import ProcessEvaluator
from autoquant.planner.request import Preparation, Request
from autoquant.planner.stored_evaluator import StoredEvaluator
from autoquant.search_spaces.scheme import Choice
from tests.planner.measurements import candidate
from tests.planner.recorded_search import comparable, run
from tests.planner.recorded_worker import SPACE

VRAM_GB = 3.1


def start(directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.planner.recorded_search", str(directory), str(VRAM_GB)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )


def calls(directory: Path) -> list[str]:
    path = directory / "calls"
    return path.read_text().split() if path.exists() else []


def events(directory: Path) -> list[dict[str, object]]:
    lines = (directory / "study" / "events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if line]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a search that nothing disturbed."""
    return tmp_path_factory.mktemp("undisturbed")


@pytest.fixture(scope="module")
def undisturbed(directory: Path) -> str:
    return comparable(run(directory, VRAM_GB))


@pytest.fixture(scope="module")
def early(undisturbed: str, directory: Path) -> str:
    """The digest of a candidate that is measured early."""
    del undisturbed
    return calls(directory)[1]


@pytest.mark.parametrize("after", [2, 6])
def test_a_killed_planner_goes_on_and_makes_the_same_plan(
    tmp_path: Path, undisturbed: str, after: int
) -> None:
    process = start(tmp_path)
    while len(calls(tmp_path)) < after:
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    finished = {path.stem for path in (tmp_path / "study" / "trials").iterdir()}
    measured_before = calls(tmp_path)
    output, _ = start(tmp_path).communicate()
    assert output.strip() == undisturbed
    # Nothing that was finished is measured again; only what was under way may be.
    assert not finished & set(calls(tmp_path)[len(measured_before) :])
    assert max(Counter(calls(tmp_path)).values()) <= 2


def test_the_worker_of_a_killed_planner_ends(tmp_path: Path) -> None:
    process = start(tmp_path)
    while not calls(tmp_path):
        time.sleep(0.005)
    process.kill()
    process.wait()
    (worker,) = {e["worker"] for e in events(tmp_path) if e["event"] == "worker started"}
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()


def test_a_worker_that_someone_kills_is_replaced_and_the_candidate_measured_again(
    tmp_path: Path, undisturbed: str, early: str
) -> None:
    (tmp_path / f"kill-{early}").write_text("once")
    assert comparable(run(tmp_path, VRAM_GB)) == undisturbed
    ends = [e["failure"] for e in events(tmp_path) if e["event"] == "worker ended"]
    assert "killed by SIGKILL" in str(ends[0])


def test_a_candidate_that_is_killed_every_time_is_a_failed_trial(
    tmp_path: Path, early: str
) -> None:
    (tmp_path / f"kill-{early}").write_text("always")
    plan = run(tmp_path, VRAM_GB, trials=5)
    reasons = [failure.reason for failure in plan.search.failures]
    assert any("killed by SIGKILL in the phase 'load', 2 times" in reason for reason in reasons)


def test_a_finished_search_is_told_again_without_a_worker(tmp_path: Path, undisturbed: str) -> None:
    run(tmp_path, VRAM_GB)
    n_calls = len(calls(tmp_path))
    assert comparable(run(tmp_path, VRAM_GB)) == undisturbed
    assert len(calls(tmp_path)) == n_calls
    assert sum(event["event"] == "worker started" for event in events(tmp_path)) == 1


def test_another_budget_measures_only_what_it_needs_more(tmp_path: Path) -> None:
    plan = run(tmp_path, VRAM_GB)
    n_calls = len(calls(tmp_path))
    other = run(tmp_path, 2.4)
    assert plan.measured.peak_gb <= VRAM_GB
    assert other.measured.peak_gb <= 2.4
    run(tmp_path / "alone", 2.4)
    assert len(calls(tmp_path)) - n_calls < len(calls(tmp_path / "alone"))
    assert max(Counter(calls(tmp_path)).values()) == 1


def test_a_record_that_was_cut_short_is_measured_again(
    tmp_path: Path, undisturbed: str, early: str
) -> None:
    run(tmp_path, VRAM_GB)
    n_calls = len(calls(tmp_path))
    path = tmp_path / "study" / "trials" / f"{early}.json"
    path.write_bytes(path.read_bytes()[:-100])
    assert comparable(run(tmp_path, VRAM_GB)) == undisturbed
    assert calls(tmp_path)[n_calls:] == [early]


def test_the_log_tells_what_became_of_each_trial(tmp_path: Path) -> None:
    plan = run(tmp_path, VRAM_GB, trials=12)
    log = events(tmp_path)
    trials = [event for event in log if event["event"] == "trial"]
    assert [event["trial"] for event in trials] == list(range(plan.search.trials))
    failed = [event for event in trials if "failure" in event]
    assert {event["failure"] for event in failed} == {"no kernel for three bits"}
    assert len(failed) == plan.search.failed > 0
    measured = [event for event in log if event["event"] == "measured"]
    assert all(event["digest"] and event["seconds"] >= 0.01 for event in measured)
    assert {event["phase"] for event in log if event["event"] == "phase"} == {
        "open",
        "load",
        "draw",
    }
    assert all(str(event["time"]).endswith("Z") for event in log)


def test_a_log_whose_last_line_was_cut_short_goes_on_in_a_new_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventLog(path)("one")
    path.write_text(path.read_text() + '{"time": "20')
    EventLog(path)("two")
    lines = path.read_text().splitlines()
    assert [json.loads(lines[number])["event"] for number in (0, 2)] == ["one", "two"]


def test_the_planner_s_memory_is_flat_over_500_trials(tmp_path: Path) -> None:
    study = MeasurementStore(tmp_path / "study")
    log = EventLog(tmp_path / "events.jsonl")
    request = Request(pipeline="recorded", clip_model=str(tmp_path))
    worker = partial(
        ProcessEvaluator, request, study.image_root, log, "tests.planner.recorded_worker"
    )
    process = psutil.Process()
    resident = []
    with ExitStack() as stack:

        def start() -> tuple[Preparation, ProcessEvaluator]:
            measuring = stack.enter_context(worker())
            return measuring.preparation, measuring

        evaluator = StoredEvaluator(study, start, on_event=log)
        for number in range(500):
            choice = Choice(scheme="fake:int8", exclusions=(f"layer{number}",))
            evaluator.answer(
                candidate().model_copy(
                    update={"components": dict.fromkeys(SPACE.components, choice)}
                )
            )
            resident.append(process.memory_info().rss)
    assert len(calls(tmp_path)) == 500
    assert resident[499] - resident[49] < 4 * 2**20
