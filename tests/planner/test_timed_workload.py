from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from autoquant.planner.building import BuiltPipeline
from autoquant.planner.candidate import Runtime
from autoquant.planner.phases import limited_to
from autoquant.planner.timed_workload import draw_workload, warm_up
from autoquant.planner.workload import Workload

CPU = torch.device("cpu")


def test_a_limit_begins_once_because_it_empties_the_allocators_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happened: list[str] = []

    @contextmanager
    def limit(device: torch.device, limit_bytes: int | None) -> Iterator[bool]:
        happened.append("limit" if limit_bytes == 2**30 else f"{limit_bytes}")
        yield True
        happened.append("end")

    def pipeline(**arguments: Any) -> Any:
        happened.append("call")
        return SimpleNamespace(images=np.full((1, 8, 8, 3), 0.5, dtype=np.float32))

    monkeypatch.setattr("autoquant.planner.memory_faults.memory_limit", limit)
    built = BuiltPipeline(
        pipeline=pipeline,
        components=(),
        runtime=Runtime(),
        load_peak_bytes=0,
        weight_bytes=0,
    )
    workload = Workload(prompts=("a", "b", "c"), height=8, width=8, steps=1)
    with limited_to(1.0):
        drawn = draw_workload(built, warm_up(built, workload, CPU), workload, CPU)
    assert happened == ["call", "limit", "call", "call", "call", "end"]
    assert drawn.images.shape == (3, 8, 8, 3)
