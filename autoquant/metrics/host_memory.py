"""How much host memory this process takes while something runs."""

from __future__ import annotations

import ctypes
import sys
import threading
from types import TracebackType

import psutil  # type: ignore[import-untyped]

_PAUSE_S = 0.02


def give_back_host_memory() -> None:
    """Hand freed blocks back to the system, so that what runs next is not charged for them.

    Only glibc keeps them for long, and only it can be asked.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def resident_bytes() -> int:
    """Bytes of this process that lie in memory now, without freed blocks."""
    give_back_host_memory()
    return int(psutil.Process().memory_info().rss)


class HostMemory:
    """Watches the resident set of this process; a context manager that can be entered again.

    It is read fifty times a second, so a shorter peak can be missed. Pages of files that are mapped
    count as far as they have been touched, as the system counts them.

    Args:
        idle_bytes: What the process holds when it does nothing.
    """

    def __init__(self, idle_bytes: int) -> None:
        self.idle_bytes = idle_bytes
        self._highest = 0
        self._process = psutil.Process()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def peak_bytes(self) -> int:
        """Most bytes above idle in all regions so far."""
        return max(0, self._highest - self.idle_bytes)

    def reached(self, peak_bytes: int) -> None:
        """Take over a peak above idle that the same work reached before, where it was higher."""
        self._highest = max(self._highest, self.idle_bytes + peak_bytes)

    def __enter__(self) -> HostMemory:
        self._ended.clear()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._read()
        self._ended.set()
        assert self._thread is not None
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self._read()
            if self._ended.wait(_PAUSE_S):
                return

    def _read(self) -> None:
        self._highest = max(self._highest, int(self._process.memory_info().rss))
