"""What a long run says about itself while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from autoquant.planner.measurement import Trial

Phase = Literal["reference", "search", "recheck", "confirmation", "done"]


@dataclass(frozen=True)
class Progress:
    """One step of a run.

    Attributes:
        phase: What is going on.
        done: Trials finished, of ``total``.
        trial: The trial that has just ended.
        best: The best feasible trial so far; in a recheck, what is measured again.
        seconds: Wall seconds since the start.
        seconds_left: A guess from the mean trial so far; ``None`` before the first.
    """

    phase: Phase
    done: int = 0
    total: int = 0
    trial: Trial | None = None
    best: Trial | None = None
    seconds: float = 0.0
    seconds_left: float | None = None


OnProgress = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Show nothing."""
