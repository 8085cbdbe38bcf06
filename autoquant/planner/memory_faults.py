"""What running out of memory proves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from autoquant.errors import CandidateFailed, OutOfMemory, first_line
from autoquant.metrics.device import GIB, capacity_bytes, memory_limit
from autoquant.planner.quantities import gigabytes

# torch's CPU allocator raises a plain RuntimeError (c10/core/impl/alloc_cpu.cpp).
_CPU_ALLOCATOR = "DefaultCPUAllocator: can't allocate memory"

# MPS raises a plain RuntimeError too (aten/src/ATen/mps/MPSAllocator.mm).
_MPS_ALLOCATOR = "MPS backend out of memory"
# Memory that libraries and the driver take beside torch's allocator. The driver says the same when
# pinned host memory ends, so none of them proves what a device can hold.
_BESIDE_THE_ALLOCATOR = (
    "CUDA error: out of memory",
    "HIP error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device's memory came to an end, by whatever name."""
    return _is_out_of_device_memory(error) or _is_refused_beside_the_allocator(error)


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
    if _is_refused_beside_the_allocator(error):
        return CandidateFailed(f"out of memory: {first_line(error)}")
    bound_gb = capacity_bytes(device) / GIB
    return OutOfMemory(
        f"out of memory: {first_line(error)}; {gigabytes(bound_gb)} were not enough", bound_gb
    )


@contextmanager
def held_to(device: torch.device, limit_bytes: int | None) -> Iterator[None]:
    """Run what is inside within ``limit_bytes`` of ``device``, where it takes a limit.

    Raises:
        OutOfMemory: The limit, and not the device, was not enough.
    """
    with memory_limit(device, limit_bytes) as is_enforced:
        try:
            yield
        except torch.OutOfMemoryError as error:
            if not is_enforced or limit_bytes is None:
                raise
            limit_gb = limit_bytes / GIB
            raise OutOfMemory(
                f"out of memory: {first_line(error)}; {gigabytes(limit_gb)}, which one call kept, "
                "were not enough for several",
                limit_gb,
            ) from error


def _is_out_of_device_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or _MPS_ALLOCATOR in str(error)


def _is_refused_beside_the_allocator(error: BaseException) -> bool:
    is_ours = isinstance(error, torch.OutOfMemoryError)
    return not is_ours and any(said in str(error) for said in _BESIDE_THE_ALLOCATOR)
