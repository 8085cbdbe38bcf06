"""What a search leaves behind."""

from __future__ import annotations

from dataclasses import dataclass

from autoquant.planner.measurement import Trial
from autoquant.planner.recheck import Recheck
from autoquant.planner.sensitivity import Sensitivity


@dataclass(frozen=True)
class SearchResult:
    """Every trial in order, and how the search ended.

    Attributes:
        trials: Measured and failed ones.
        seconds: Wall seconds.
        interrupted: By Ctrl-C.
        converged: Because no candidate was left that should improve on the best one.
        pruned: Those that were never loaded, because they cannot keep the memory budget.
        rechecks: What was measured again near a limit; the trials hold the new figures.
    """

    trials: tuple[Trial, ...]
    seconds: float
    interrupted: bool
    converged: bool = False
    pruned: tuple[Trial, ...] = ()
    sensitivity: tuple[Sensitivity, ...] = ()
    rechecks: tuple[Recheck, ...] = ()
