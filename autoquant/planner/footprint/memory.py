"""Bytes on an accelerator by its two counters, and what running stages adds to each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from autoquant.planner.footprint.allocator import CachingAllocator
from autoquant.planner.footprint.tape import Tape

# What cuBLAS takes through the allocator at its first product and keeps: 32 MiB on Hopper, 8 MiB on
# older cards (aten/src/ATen/cuda/CublasHandlePool.cpp, parseChosenWorkspaceSize).
CUBLAS_WORKSPACE = 32 * 2**20


@dataclass(frozen=True)
class Memory:
    """Bytes on the accelerator by PyTorch's two counters.

    Attributes:
        allocated: Behind live tensors.
        reserved: Taken from the card; this is what must fit.
    """

    allocated: int
    reserved: int

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.allocated + other.allocated, self.reserved + other.reserved)


NOTHING = Memory(0, 0)


def one_after_another(stages: Mapping[str, Iterable[Tape]]) -> dict[str, Memory]:
    """Run stages through one allocator, which keeps what earlier ones freed: peaks by stage."""
    allocator = CachingAllocator()
    allocator.keep(CUBLAS_WORKSPACE)
    peaks: dict[str, Memory] = {}
    for stage, parts in stages.items():
        highest = 0
        for tape in parts:
            allocator.play(tape.events)
            highest = max(highest, tape.peak_bytes)
        peaks[stage] = Memory(highest + CUBLAS_WORKSPACE, allocator.reserved_bytes)
    return peaks


def total(parts: Iterable[Memory]) -> Memory:
    """The sum."""
    return sum(parts, NOTHING)
