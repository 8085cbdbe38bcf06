"""Other processes that search the same space for the same budget, as a search sees them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from autoquant.planner.candidate import Candidate


class Others(Protocol):
    """What others have measured and are measuring, by ``Candidate.key``."""

    def finished(self) -> Collection[Candidate]:
        """Candidates that the evaluator can answer at once, whoever measured them."""

    def under_way(self) -> Collection[Candidate]:
        """Candidates that someone else is measuring."""

    def abandoned(self) -> Collection[Candidate]:
        """Candidates whose worker is dead since the last call; whoever is told measures them."""

    def wait(self) -> None:
        """Wait a little for someone to finish."""


class Nobody:
    """A search of its own."""

    def finished(self) -> Collection[Candidate]:
        return ()

    def under_way(self) -> Collection[Candidate]:
        return ()

    def abandoned(self) -> Collection[Candidate]:
        return ()

    def wait(self) -> None:
        return None
