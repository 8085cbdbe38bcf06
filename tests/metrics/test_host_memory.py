from __future__ import annotations

import time

import numpy as np

from autoquant.metrics.host_memory import HostMemory, resident_bytes

MIB = 2**20


def touch(n_bytes: int) -> None:
    block = np.ones(n_bytes, dtype=np.uint8)
    time.sleep(0.1)
    del block


def test_what_is_touched_counts_and_what_was_freed_before_the_end_too() -> None:
    memory = HostMemory(resident_bytes())
    with memory:
        touch(64 * MIB)
    assert 60 * MIB < memory.peak_bytes < 90 * MIB
    before = memory.peak_bytes
    with memory:
        touch(128 * MIB)
    assert memory.peak_bytes > before + 50 * MIB


def test_nothing_done_is_nothing_held() -> None:
    memory = HostMemory(resident_bytes())
    with memory:
        time.sleep(0.05)
    assert memory.peak_bytes < 8 * MIB
