"""What a region of code needed at most, by the counter that fits the device."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch

from autoquant.metrics import device as devices
from autoquant.metrics.tracked_tensors import TensorTracker
from autoquant.storage import owned_tensors, storages


class PeakReading:
    """The peak of one watched region; it can be read once the region has ended.

    Attributes:
        additional_bytes: Other counters read at the end of the region, by name.
        so_far_bytes: Reads the peak inside the region.
    """

    def __init__(
        self, so_far_bytes: Callable[[], int], tracker: TensorTracker | None = None
    ) -> None:
        self.additional_bytes: dict[str, int] = {}
        self.so_far_bytes = so_far_bytes
        self._tracker = tracker
        self._peak_bytes: int | None = None

    @property
    def peak_bytes(self) -> int:
        """Most bytes in use at one moment of the region.

        Raises:
            RuntimeError: The region has not ended yet.
        """
        if self._peak_bytes is None:
            raise RuntimeError("A peak can be read only after its watched region has ended.")
        return self._peak_bytes

    def hold(self, module: torch.nn.Module) -> None:
        """Count what ``module``, loaded inside the region, keeps alive, for as long as it lives.

        An accelerator's allocator has counted it already; there this does nothing.
        """
        if self._tracker is not None:
            self._tracker.hold(module)

    def end(self, peak_bytes: int) -> None:
        """Set the peak; counters call this when the region ends."""
        self._peak_bytes = peak_bytes


class MemoryCounter(Protocol):
    """Counts the memory that a region of code needs."""

    @property
    def name(self) -> str:
        """What is counted, such as ``cuda.reserved``; peaks of other names are not comparable."""

    @property
    def sees_compiled_code(self) -> bool:
        """Whether memory that a compiled graph takes is counted."""

    def watch(self, *held: torch.nn.Module) -> AbstractContextManager[PeakReading]:
        """Watch a region; ``held`` modules lie in memory when it begins."""


def counter_for(device: torch.device) -> MemoryCounter:
    """The counter that stands for the budget on ``device``."""
    return TrackedTensors() if device.type == "cpu" else ReservedMemory(device)


def held_bytes_on(device: torch.device) -> int:
    """Bytes that live tensors take on ``device`` now.

    On an accelerator its allocator tells; on a CPU every tensor that Python can reach is counted.
    """
    if device.type != "cpu":
        return devices.allocated_bytes(device)
    live = [found for found in gc.get_objects() if issubclass(type(found), torch.Tensor)]
    owned = (inner for tensor in live for inner in owned_tensors(tensor))
    on_cpu = (tensor for tensor in owned if tensor.device.type == "cpu")
    return sum(storage.nbytes() for storage in storages(on_cpu))


class TrackedTensors:
    """Counts live tensors on a CPU; see ``TensorTracker`` for what that means.

    Every operation inside the region passes through Python, so time nothing there. Only the thread
    that opened the region is seen.
    """

    name = "cpu.tracked_tensors"
    # A compiled graph calls its kernels without torch's dispatcher.
    sees_compiled_code = False

    @contextmanager
    def watch(self, *held: torch.nn.Module) -> Iterator[PeakReading]:
        """Watch a region; tensors made before it count only when a held module owns them."""
        tracker = TensorTracker()
        for module in held:
            tracker.hold(module)
        reading = PeakReading(lambda: tracker.peak_bytes, tracker)
        try:
            with tracker:
                yield reading
        finally:
            reading.end(tracker.peak_bytes)


class ReservedMemory:
    """Reads an accelerator's own allocator: the most it reserved, which is what must fit the card.

    ``additional_bytes`` holds ``<kind>.allocated`` (peak of live tensors) and, on NVIDIA,
    ``nvml.used`` (the whole card when the region ends, other processes included).
    """

    sees_compiled_code = True

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.name = f"{device.type}.reserved"

    @contextmanager
    def watch(self, *held: torch.nn.Module) -> Iterator[PeakReading]:
        """Watch a region; blocks cached by earlier work are given back first."""
        del held  # on the device already, so the allocator counts them
        reading = PeakReading(lambda: devices.peak_reserved_bytes(self._device))
        devices.synchronize(self._device)
        devices.release_memory(self._device)
        devices.reset_peaks(self._device)
        try:
            yield reading
            devices.synchronize(self._device)
        finally:
            reading.end(devices.peak_reserved_bytes(self._device))
            allocated = devices.peak_allocated_bytes(self._device)
            reading.additional_bytes[f"{self._device.type}.allocated"] = allocated
            used_bytes = devices.nvml_used_bytes(self._device)
            if used_bytes is not None:
                reading.additional_bytes["nvml.used"] = used_bytes
