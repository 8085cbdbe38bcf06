from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autoquant.errors import CandidateFailed, OutOfMemory
from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.evaluator import AnsweringEvaluator
from autoquant.planner.measurement import Answer
from autoquant.planner.measurement_store import MeasurementStore
from autoquant.planner.parameters import unquantized
from autoquant.planner.racing import Race, stopped
from autoquant.planner.request import Preparation
from autoquant.planner.stored_evaluator import StoredEvaluator
from tests.planner.measurements import candidate, measured
from tests.planner.recorded_worker import PREPARATION, SPACE, Recorded

INT8, BROKEN = candidate("fake:int8"), candidate("fake:broken3")


class Device:
    """Starts what measures, and counts what it was asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = root / "study" / "images"

    def start(self) -> tuple[Preparation, AnsweringEvaluator]:
        self._count("start")
        device = Recorded(self.root / "calls", self.images)
        device.draw(unquantized(SPACE, Runtime()))
        return PREPARATION, device

    def _count(self, what: str) -> None:
        with (self.root / "calls").open("a") as file:
            file.write(f"{what}\n")

    @property
    def calls(self) -> list[str]:
        path = self.root / "calls"
        return path.read_text().split() if path.exists() else []


def opened(root: Path, device: Device, **options: Any) -> StoredEvaluator:
    return StoredEvaluator(MeasurementStore(root / "study"), device.start, **options)


def test_nothing_is_measured_twice_and_nothing_started_that_is_not_needed(tmp_path: Path) -> None:
    device = Device(tmp_path)
    first = opened(tmp_path, device)
    answer = first.answer(INT8)
    assert device.calls == ["start", INT8.digest]
    again = opened(tmp_path, device)
    assert again.preparation == PREPARATION
    assert again.answer(INT8) == answer
    assert again.answer(unquantized(SPACE, Runtime())) == PREPARATION.reference
    assert again.images_of(INT8).is_dir()
    assert device.calls == ["start", INT8.digest]


def test_what_was_stopped_is_measured_again_where_it_may_win(tmp_path: Path) -> None:
    class Stopping:
        def answer(self, candidate: Candidate, race: Race | None = None) -> Answer:
            asked.append(race)
            whole = measured(per_image=(0.1,) * 8, loss=0.1, peak_gb=3.0)
            seen = whole if race is None else stopped(whole, race, 1)
            return Answer(measured=seen, components={})

    def race(vram_gb: float) -> Race:
        return Race(budget=Budget.of(vram_gb=vram_gb), best=None, hardness=(0.1,) * 8)

    asked: list[Race | None] = []
    evaluator = StoredEvaluator(MeasurementStore(tmp_path), lambda: (PREPARATION, Stopping()))
    assert evaluator.answer(INT8, race(2.0)).measured.undrawn_images == 5
    assert evaluator.answer(INT8, race(2.5)).measured.undrawn_images == 5
    assert asked == [race(2.0)]  # it misses the other limit as well
    assert evaluator.answer(INT8, race(4.0)).measured.is_whole
    assert evaluator.answer(INT8, race(2.0)).measured.is_whole
    assert asked == [race(2.0), race(4.0)]


def test_what_was_not_timed_is_drawn_again_where_it_shall_be(tmp_path: Path) -> None:
    device = Device(tmp_path)
    few = PREPARATION.workload.model_copy(update={"steps": 7})
    for timed in (False, False, True, False):
        opened(tmp_path, device).compare(INT8, few, timed=timed)
    assert [call for call in device.calls if call != "start"] == [f"{INT8.digest}-7"] * 2


def test_a_comparison_is_made_once_for_each_workload(tmp_path: Path) -> None:
    device = Device(tmp_path)
    few = PREPARATION.workload.model_copy(update={"steps": 7})
    cache = MeasurementStore(tmp_path / "cache")
    first = opened(tmp_path, device, cache=cache).compare(INT8, few)
    assert opened(tmp_path, device).compare(INT8, few) == first
    assert cache.read_comparison(INT8, few) is not None
    assert cache.read_comparison(INT8, PREPARATION.workload) is None
    assert opened(tmp_path, device).compare(INT8, few, timed=False) == first
    for _ in range(2):
        with pytest.raises(CandidateFailed, match="no kernel for three bits"):
            opened(tmp_path, device).compare(BROKEN, few)
    assert device.calls == ["start", f"{INT8.digest}-7", "start", f"{BROKEN.digest}-7"]


def test_a_failure_is_not_tried_again(tmp_path: Path) -> None:
    device = Device(tmp_path)
    for _ in range(2):
        with pytest.raises(CandidateFailed, match="no kernel for three bits"):
            opened(tmp_path, device).answer(BROKEN)
    assert device.calls == ["start", BROKEN.digest]


def test_a_cache_answers_another_study_and_gives_its_images(tmp_path: Path) -> None:
    cache = MeasurementStore(tmp_path / "cache")
    one, other = tmp_path / "one", tmp_path / "other"
    for root in (one, other):
        root.mkdir()
    answer = opened(one, Device(one), cache=cache).answer(INT8)
    device = Device(other)
    evaluator = opened(other, device, cache=cache)
    assert evaluator.answer(INT8) == answer
    assert [path.name for path in evaluator.images_of(INT8).iterdir()] == ["0000.png"]
    assert device.calls == []


@pytest.mark.parametrize("entry", ["trials", "preparations"])
def test_a_damaged_cache_is_measured_again(tmp_path: Path, entry: str) -> None:
    cache = MeasurementStore(tmp_path / "cache")
    one, other = tmp_path / "one", tmp_path / "other"
    for root in (one, other):
        root.mkdir()
    answer = opened(one, Device(one), cache=cache).answer(INT8)
    for file in (cache.root / entry).iterdir():
        file.write_bytes(file.read_bytes()[:-20])
    device = Device(other)
    assert opened(other, device, cache=cache).answer(INT8) == answer
    assert device.calls[0] == "start"
    # What was damaged is whole again.
    assert cache.read(INT8) is not None
    assert cache.read_preparation("preparation") == PREPARATION


def test_lost_images_are_drawn_again_and_the_measurement_stays(tmp_path: Path) -> None:
    device = Device(tmp_path)
    answer = opened(tmp_path, device).answer(INT8)
    image = device.images / INT8.digest / "0000.png"
    whole = image.read_bytes()
    image.write_bytes(b"damaged")
    again = opened(tmp_path, device)
    assert (again.images_of(INT8) / "0000.png").read_bytes() == whole
    assert again.answer(INT8) == answer


class Full:
    """Runs out of memory at 8 GB."""

    calls = 0

    def answer(self, candidate: Candidate, race: Race | None = None) -> Answer:
        Full.calls += 1
        raise OutOfMemory("out of memory: 8 GB were not enough", bound_gb=8.0)


@pytest.mark.parametrize(("vram_gb", "is_tried_again"), [(6.0, False), (8.0, False), (9.0, True)])
def test_running_out_of_less_memory_than_the_budget_proves_nothing(
    tmp_path: Path, vram_gb: float, is_tried_again: bool
) -> None:
    Full.calls = 0

    def asked(vram_gb: float) -> None:
        evaluator = StoredEvaluator(
            MeasurementStore(tmp_path), lambda: (PREPARATION, Full()), vram_gb=vram_gb
        )
        with pytest.raises(CandidateFailed, match="8 GB were not enough"):
            evaluator.answer(INT8)

    asked(6.0)
    asked(vram_gb)
    assert Full.calls == 1 + is_tried_again


def test_no_home_directory_and_no_token_in_what_is_kept(tmp_path: Path) -> None:
    class Telling:
        def answer(self, candidate: Candidate, race: Race | None = None) -> Answer:
            raise CandidateFailed(f"{Path.home()}/model refused hf_{'a' * 30}")

    evaluator = StoredEvaluator(MeasurementStore(tmp_path), lambda: (PREPARATION, Telling()))
    with pytest.raises(CandidateFailed, match=r"~/model refused \*\*\*"):
        evaluator.answer(INT8)
