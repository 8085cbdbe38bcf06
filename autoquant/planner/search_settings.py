"""How much a search may spend."""

from __future__ import annotations

from dataclasses import dataclass

from autoquant.errors import InputError


@dataclass(frozen=True)
class SearchSettings:
    """How much to spend.

    Attributes:
        trials: Most candidates to measure.
        time_limit_s: Wall seconds after which no further candidate is started.
        seed: Seed of the sampler.
        confirm: Whether the winner is drawn on prompts and seeds that the search never saw.
        stop_early: Whether a candidate's further images are left out once it cannot be the plan.
    """

    trials: int = 40
    time_limit_s: float | None = None
    seed: int = 0
    confirm: bool = True
    stop_early: bool = True

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise InputError(f"trials must be at least 1, got {self.trials}.")
        if self.time_limit_s is not None and not self.time_limit_s > 0:
            raise InputError(f"time_limit must be above 0 seconds, got {self.time_limit_s:g}.")
