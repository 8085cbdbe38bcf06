from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from autoquant.errors import OutOfMemory
from autoquant.metrics.device import memory_limit
from autoquant.planner.health import Health, HealthCheck
from autoquant.planner.memory_faults import held_to, out_of_memory
from autoquant.planner.process_evaluator import ProcessEvaluator
from autoquant.planner.request import Request
from tests.planner.measurements import candidate
from tests.planner.recorded_search import run
from tests.planner.test_resuming import events

CPU = torch.device("cpu")
WORKER = "tests.planner.recorded_worker"


def request(directory: Path) -> Request:
    return Request(pipeline="recorded", clip_model=str(directory))


def worker_of(evaluator: ProcessEvaluator) -> int | None:
    return None if evaluator._worker is None else evaluator._worker.pid


@pytest.mark.parametrize(
    ("held_gb", "is_accelerator", "kept_gb"),
    [
        (1.0, False, 0.0),
        (1.1, False, 0.0),  # within 2% of 10 GB
        (1.5, False, 0.5),
        (1.25, True, 0.0),  # 0.2 GB and the workspaces
        (1.5, True, 0.5),
    ],
)
def test_what_a_trial_left_behind(held_gb: float, is_accelerator: bool, kept_gb: float) -> None:
    before = Health(held_gb=1.0)
    now = Health(held_gb=held_gb)
    assert now.kept(before, 10.0, is_accelerator=is_accelerator) == pytest.approx(kept_gb)


def test_tensors_that_stay_are_seen_on_a_cpu_and_those_that_went_are_not() -> None:
    check = HealthCheck(CPU)
    before = check()
    kept = {"inside": [torch.empty(2**20, dtype=torch.uint8)]}
    view = kept["inside"][0][:1000]
    assert round((check().held_gb - before.held_gb) * 2**30) == 2**20
    del kept
    assert round((check().held_gb - before.held_gb) * 2**30) == 2**20
    del view
    gc.collect()
    assert check().held_gb == before.held_gb
    assert check().others_gb is None


def test_other_users_of_a_card_are_told_from_our_own_context() -> None:
    own, context, others = 0, 0, 3 * 2**30
    card = torch.device("cpu")
    check = HealthCheck(card, lambda _: own + context + others, lambda _: own)
    own, context = 5 * 2**30, 2**29
    assert check().others_gb == 3.0
    own = 7 * 2**30
    assert check().others_gb == 3.0
    others = 2**28 + 2**30
    assert check().noticed_others_gb == 1.25
    others = 2**27
    assert check().noticed_others_gb == 0.0


def test_others_on_the_card_are_noticed_and_said(tmp_path: Path) -> None:
    health = tmp_path / "health.json"
    health.write_text(json.dumps({"held_gb": 0.0, "others_gb": 2.0}))
    plan = run(tmp_path, 6.0, trials=2)
    assert "held up to 2.00 GB of the device" in plan.search.notes[-1]
    log = events(tmp_path)
    assert {"event": "others use the device", "gb": 2.0}.items() <= next(
        event for event in log if event["event"] == "others use the device"
    ).items()
    assert sum(event["event"] == "worker started" for event in log) == 1


def test_a_worker_that_keeps_memory_is_replaced(tmp_path: Path) -> None:
    def held(gb: float) -> None:
        (tmp_path / "health.json").write_text(json.dumps({"held_gb": gb}))

    held(0.0)
    evaluator = ProcessEvaluator(request(tmp_path), tmp_path / "images", worker=WORKER)
    with evaluator:
        evaluator.answer(candidate("fake:int8"))
        first = worker_of(evaluator)
        assert first is not None
        held(1.0)
        evaluator.answer(candidate("fake:int4"))
        assert worker_of(evaluator) is None
        held(0.0)
        evaluator.answer(candidate("fake:int6"))
        assert worker_of(evaluator) not in {None, first}


def test_out_of_memory_says_how_much_was_not_enough() -> None:
    failure = out_of_memory(torch.OutOfMemoryError("tried to allocate 80 GiB\n at x"), CPU)
    assert failure.bound_gb is not None
    assert failure.bound_gb > 0.1
    assert "tried to allocate 80 GiB; " in str(failure)
    assert "were not enough" in str(failure)
    host = out_of_memory(MemoryError("numpy"), torch.device("cuda"))
    assert host.bound_gb is None
    assert "out of host memory" in str(host)


def test_what_libraries_and_the_driver_refuse_proves_no_bound() -> None:
    for said in ("CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED"):
        failure = out_of_memory(RuntimeError(said), CPU)
        assert failure.bound_gb is None
        assert said in str(failure)


def test_the_limit_was_not_enough_where_the_device_would_have_been(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @contextmanager
    def limit(device: torch.device, limit_bytes: int | None) -> Iterator[bool]:
        yield limit_bytes is not None

    monkeypatch.setattr("autoquant.planner.memory_faults.memory_limit", limit)
    said = r"4\.00 GB, which one call kept"
    with pytest.raises(OutOfMemory, match=said) as failure, held_to(CPU, 4 * 2**30):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert failure.value.bound_gb == 4.0
    with pytest.raises(torch.OutOfMemoryError), held_to(CPU, None):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_cpu_takes_no_limit() -> None:
    with memory_limit(CPU, 2**20) as is_enforced:
        assert not is_enforced
