"""A whole search in a process of its own, answered by the recorded worker; it can be killed.

    python -m tests.planner.recorded_search DIRECTORY VRAM_GB

The candidates that were measured are appended to DIRECTORY/calls.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from autoquant.planner.budget import Budget
from autoquant.planner.identity import Identity
from autoquant.planner.plan import Plan
from autoquant.planner.planning import plan_pipeline
from autoquant.planner.request import Request
from autoquant.planner.search_settings import SearchSettings
from autoquant.planner.study_directory import StudyDirectory

TRIALS = 30
IDENTITY = Identity(parts={"model": {"content": "recorded"}})


def run(directory: Path, vram_gb: float, trials: int = TRIALS) -> Plan:
    model = directory / "model"
    model.mkdir(parents=True, exist_ok=True)
    request = Request(pipeline=str(model), clip_model=str(directory))
    with StudyDirectory(directory / "study", IDENTITY) as study:
        return plan_pipeline(
            request,
            Budget.of(vram_gb=vram_gb),
            SearchSettings(trials=trials),
            study,
            worker="tests.planner.recorded_worker",
        ).plan


# When, how long and where differ between two runs over the same measurements, and nothing else.
comparable = partial(
    Plan.model_dump_json,
    exclude={"created": True, "pipeline": {"source"}, "search": {"seconds", "notes"}},
)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    print(comparable(run(place, float(sys.argv[2]))))
