"""What running out of memory proves."""

from __future__ import annotations

import torch

from autoquant.errors import CandidateFailed, OutOfMemory, first_line
from autoquant.metrics.device import GIB, capacity_bytes
from autoquant.planner.quantities import gigabytes

# torch's CPU allocator raises a plain RuntimeError (c10/core/impl/alloc_cpu.cpp).
_CPU_ALLOCATOR = "DefaultCPUAllocator: can't allocate memory"


def is_out_of_host_memory(error: BaseException) -> bool:
    """Whether the host's memory came to an end."""
    return isinstance(error, MemoryError) or _CPU_ALLOCATOR in str(error)


def out_of_memory(error: BaseException, device: torch.device) -> CandidateFailed:
    """The failure of a candidate that needs more than there is.

    The bound is what this process could have on the device. The host's memory bounds nothing on an
    accelerator.
    """
    if is_out_of_host_memory(error) and device.type != "cpu":
        return CandidateFailed(f"out of host memory: {first_line(error)}")
    bound_gb = capacity_bytes(device) / GIB
    return OutOfMemory(
        f"out of memory: {first_line(error)}; {gigabytes(bound_gb)} were not enough", bound_gb
    )
