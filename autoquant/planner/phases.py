"""What surrounds a measurement: the phases it passes through, and the limit that it is held to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

Phase = Literal["open", "load", "warm up", "draw", "score"]
PHASES: tuple[Phase, ...] = get_args(Phase)

_listeners: list[Callable[[Phase], None]] = []
_limits_gb: list[float | None] = [None]


def announce(phase: Phase) -> None:
    """Say that ``phase`` begins; whoever listens in this process hears it."""
    for listener in _listeners:
        listener(phase)


@contextmanager
def listening(listener: Callable[[Phase], None]) -> Iterator[None]:
    """Have ``listener`` called at the beginning of each phase."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def limit_gb() -> float | None:
    """Device memory in GiB that what is being measured must keep, if it can."""
    return _limits_gb[-1]


@contextmanager
def limited_to(limit_gb: float | None) -> Iterator[None]:
    """Hold measurements inside to ``limit_gb`` of device memory."""
    _limits_gb.append(limit_gb)
    try:
        yield
    finally:
        _limits_gb.pop()
