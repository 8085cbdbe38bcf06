"""A worker that answers from a finished study: ``request.pipeline`` is its ``study`` directory."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from autoquant.errors import CandidateFailed
from autoquant.planner.candidate import Candidate
from autoquant.planner.health import Health
from autoquant.planner.measurement import Answer, Comparison
from autoquant.planner.measurement_store import MeasurementStore, Record
from autoquant.planner.parameters import unquantized
from autoquant.planner.phases import announce
from autoquant.planner.racing import Race
from autoquant.planner.request import Preparation, Request
from autoquant.planner.worker import Prepared, serve_standard_streams
from autoquant.planner.workload import Workload

PHASE_S = 0.01


class Replay:
    """Takes a little time in each phase, so that a kill can come in any of them."""

    def __init__(self, study: MeasurementStore, image_root: Path) -> None:
        self._study = study
        self._image_root = image_root

    def answer(self, candidate: Candidate, race: Race | None = None) -> Answer:
        for phase in ("load", "warm up", "draw"):
            announce(phase)  # type: ignore[arg-type]
            time.sleep(PHASE_S)
        record = self._study.read(candidate)
        if record is None:
            raise CandidateFailed("it was not recorded")
        if record.answer is None:
            raise CandidateFailed(record.failure or "", record.bound_gb)
        announce("score")
        self.draw(record)
        return record.answer

    def compare(
        self, candidate: Candidate, workload: Workload, *, timed: bool = True
    ) -> Comparison:
        time.sleep(PHASE_S)
        record = self._study.read_comparison(candidate, workload, timed)
        if record is None or record.comparison is None:
            raise CandidateFailed("it was not recorded" if record is None else str(record.failure))
        return record.comparison

    def draw(self, record: Record) -> None:
        """Copy the images one by one."""
        target = self._image_root / record.candidate.digest
        target.mkdir(parents=True, exist_ok=True)
        for image in sorted((self._study.image_root / record.candidate.digest).glob("*.png")):
            shutil.copyfile(image, target / image.name)

    def health(self) -> Health:
        return Health(held_gb=0.0)


def prepare(request: Request, image_root: Path) -> Prepared:
    """What the finished study knew before its search."""
    study = MeasurementStore(Path(request.pipeline))
    (file,) = (study.root / "preparations").glob("*.json")
    preparation = study.read_preparation(file.stem)
    assert isinstance(preparation, Preparation)
    reference = study.read(unquantized(preparation.space, preparation.runtime))
    assert reference is not None
    replay = Replay(study, image_root)
    time.sleep(PHASE_S)
    replay.draw(reference)
    return preparation, replay, replay.health


if __name__ == "__main__":
    serve_standard_streams(prepare)
