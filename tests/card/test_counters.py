"""The counters, limits and clocks of a card, against what is known of a few tensors."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch

from autoquant.errors import OutOfMemory
from autoquant.metrics import device as devices
from autoquant.metrics.host_memory import HostMemory, resident_bytes
from autoquant.metrics.latency import timed
from autoquant.metrics.memory import counter_for, held_bytes_on
from autoquant.planner.candidate import Runtime
from autoquant.planner.health import HealthCheck
from autoquant.planner.memory_faults import held_to, out_of_memory
from autoquant.planner.preparation import first_that_fits, reference_runtimes
from autoquant.search_spaces.levers import LeverSpace

pytestmark = pytest.mark.gpu

SMALL, LARGE = 2**26, 2**29


def block(device: torch.device, n_bytes: int) -> torch.Tensor:
    return torch.empty(n_bytes, dtype=torch.uint8, device=device)


@pytest.fixture(autouse=True)
def _clean(real_card: torch.device) -> Iterator[None]:
    devices.release_memory(real_card)
    yield
    devices.release_memory(real_card)


@pytest.mark.usefixtures("name_the_card")
def test_a_peak_is_what_lived_at_once_and_is_forgotten(real_card: torch.device) -> None:
    counter = counter_for(real_card)
    with counter.watch() as large:
        first = block(real_card, LARGE)
        second = block(real_card, LARGE)
        del first, second
    with counter.watch() as small:
        block(real_card, SMALL)
    allocated = f"{real_card.type}.allocated"
    assert large.peak_bytes >= large.additional_bytes[allocated] >= 2 * LARGE
    assert SMALL <= small.additional_bytes[allocated] <= small.peak_bytes < LARGE


def test_live_bytes_fall_when_tensors_die(real_card: torch.device) -> None:
    before = held_bytes_on(real_card)
    tensor = block(real_card, LARGE)
    assert held_bytes_on(real_card) - before == LARGE
    assert devices.reserved_bytes(real_card) >= LARGE
    del tensor
    assert held_bytes_on(real_card) == before


def test_a_limit_is_kept_and_ends(real_card: torch.device) -> None:
    with devices.memory_limit(real_card, LARGE // 2) as is_enforced:
        if not is_enforced:
            pytest.skip(f"{real_card.type} takes no limit")
        with pytest.raises(torch.OutOfMemoryError):
            block(real_card, LARGE)
    tensor = block(real_card, LARGE)
    assert tensor.nbytes == LARGE
    with pytest.raises(OutOfMemory) as failure, held_to(real_card, LARGE // 2):
        block(real_card, 4 * LARGE)
    assert failure.value.bound_gb == LARGE / 2 / devices.GIB


def test_more_than_the_card_has_is_out_of_memory_and_proves_what_it_has(
    real_card: torch.device,
) -> None:
    total = devices.fingerprint(real_card).memory_gb * devices.GIB
    capacity = devices.capacity_bytes(real_card)
    assert LARGE < capacity <= 1.01 * total
    with pytest.raises(RuntimeError) as caught:
        block(real_card, int(2 * total))
    failure = out_of_memory(caught.value, real_card)
    assert failure.bound_gb == pytest.approx(capacity / devices.GIB, rel=0.1)
    assert held_bytes_on(real_card) < LARGE


def test_the_reference_falls_back_to_what_fits(real_card: torch.device) -> None:
    tried = []

    def measure(runtime: Runtime) -> int:
        tried.append(runtime.offload)
        total = int(devices.fingerprint(real_card).memory_gb * devices.GIB)
        held = block(real_card, LARGE)
        held = block(real_card, 2 * total if runtime.offload == "none" else SMALL)
        return held.nbytes

    levers = LeverSpace(offload=("none", "model"))
    measured, runtime, notes = first_that_fits(reference_runtimes(levers), measure, real_card)
    assert (measured, runtime.offload, tried) == (SMALL, "model", ["none", "model"])
    assert notes
    assert held_bytes_on(real_card) < LARGE


def test_pinned_host_memory_counts_and_is_given_back(real_card: torch.device) -> None:
    if real_card.type not in {"cuda", "xpu"}:
        pytest.skip("host memory is pinned for cuda and xpu")
    idle = resident_bytes()
    with HostMemory(idle) as host:
        pinned = torch.empty(LARGE, dtype=torch.uint8, pin_memory=True)
        pinned.fill_(1)
    assert host.peak_bytes > 0.9 * LARGE
    del pinned
    devices.release_memory(real_card)
    assert resident_bytes() - idle < 0.5 * LARGE


def test_a_clock_waits_for_the_work_that_was_queued(real_card: torch.device) -> None:
    matrix = torch.randn(4096, 4096, device=real_card)

    def work() -> torch.Tensor:
        product = matrix
        for _ in range(50):
            product = product @ matrix
        return product

    work()
    with timed(real_card) as clock:
        work()
    start = time.perf_counter()
    work()
    queued = time.perf_counter() - start
    devices.synchronize(real_card)
    assert clock.seconds > 3 * queued


def test_the_whole_card_holds_at_least_what_the_allocator_does(real_card: torch.device) -> None:
    check = HealthCheck(real_card)
    tensor = block(real_card, LARGE)
    used = devices.nvml_used_bytes(real_card)
    if used is None:
        pytest.skip("the driver has no counter of the whole card")
    assert used >= devices.reserved_bytes(real_card) >= LARGE
    first, second = check(), check()
    assert first.held_gb >= LARGE / devices.GIB
    assert second.noticed_others_gb == pytest.approx(first.noticed_others_gb, abs=0.3)
    del tensor
