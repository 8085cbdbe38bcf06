"""Whether a worker is as it was before a trial: memory returned, device answering, card its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import torch

# Libraries keep workspaces on an accelerator after their first use (cuBLAS: 8 to 32 MiB a stream).
_WORKSPACES_GB = 0.0625
# Of the unquantized weights; a module that stays behind is far more.
_TOLERATED_SHARE = 0.02
# Contexts and workspaces of our own move by less than this.
_NOTICED_GB = 0.25


class Health(BaseModel):
    """A worker between two trials.

    Attributes:
        held_gb: Memory that its tensors hold on the device, in GiB.
        others_gb: Memory of the card that other processes hold, in GiB, where that can be told.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    held_gb: float
    others_gb: float | None = None

    def kept(self, before: Health, weights_gb: float, *, is_accelerator: bool) -> float:
        """GiB that a trial did not give back; 0 for what workspaces explain.

        Args:
            before: The worker when it had measured the reference.
            weights_gb: The unquantized pipeline's weights.
            is_accelerator: Whether libraries keep workspaces on the device.
        """
        tolerated = _TOLERATED_SHARE * weights_gb + (_WORKSPACES_GB if is_accelerator else 0.0)
        kept = self.held_gb - before.held_gb
        return kept if kept > tolerated else 0.0

    @property
    def noticed_others_gb(self) -> float:
        """GiB of other processes, 0 where it is too little to tell from a context of our own."""
        return self.others_gb if self.others_gb and self.others_gb > _NOTICED_GB else 0.0


class HealthCheck:
    """Reads a device's counters; to be made before the device is used.

    Args:
        device: The device.
        used_bytes: Bytes in use on the whole card, by everyone, or ``None``.
        own_bytes: Bytes that this process's allocator holds there.
    """

    def __init__(
        self,
        device: torch.device,
        used_bytes: Callable[[torch.device], int | None] | None = None,
        own_bytes: Callable[[torch.device], int] | None = None,
    ) -> None:
        from autoquant.metrics import device as devices

        self._device = device
        self._used = used_bytes or devices.nvml_used_bytes
        self._own = own_bytes or devices.reserved_bytes
        self._others_before = self._used(device)
        self._context: int | None = None

    def __call__(self, kept_bytes: int = 0) -> Health:
        """Wait for the device, and read.

        Args:
            kept_bytes: What is kept on the device on purpose, which is left out.

        Raises:
            RuntimeError: The device no longer answers.
        """
        from autoquant.metrics.device import GIB, release_memory, synchronize
        from autoquant.metrics.memory import held_bytes_on

        synchronize(self._device)
        if "torch._dynamo" in sys.modules:  # compiled code holds what it was compiled for
            sys.modules["torch"].compiler.reset()
        release_memory(self._device)
        others = self._others()
        return Health(
            held_gb=(held_bytes_on(self._device) - kept_bytes) / GIB,
            others_gb=None if others is None else others / GIB,
        )

    def _others(self) -> int | None:
        used = self._used(self._device)
        if used is None or self._others_before is None:
            return None
        own = self._own(self._device)
        if self._context is None:  # what our context takes beside the allocator
            self._context = max(0, used - own - self._others_before)
        return max(0, used - own - self._context)
