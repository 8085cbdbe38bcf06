"""Rule out candidates that cannot keep the memory budget, before they are loaded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate
from autoquant.planner.measurement import Trial

Bound = Callable[[Candidate, Collection[Trial]], float | None]
"""From a candidate and the trials so far to a peak in GiB that it will not go below, if known."""


class Pruning:
    """Keeps the candidates that need not be measured.

    Attributes:
        trials: Those ruled out so far, by ``Candidate.key``.

    Args:
        bound: What is known of peaks; without it nothing is ruled out.
        budget: Only ``vram_gb`` counts.
        reference: The unquantized pipeline, which is never ruled out.
    """

    def __init__(self, bound: Bound | None, budget: Budget, reference: Candidate) -> None:
        self._bound = bound
        self._reference = reference
        self._limit_gb = budget.vram_gb
        self.trials: dict[str, Trial] = {}

    def rule_out(self, candidate: Candidate, finished: Mapping[str, Trial]) -> Trial | None:
        """A trial that is not measured, or ``None`` if it has to be.

        It is decided anew each time: what has been measured since may have shown a bound wrong.
        """
        missed = self._missed(candidate, finished)
        if missed is None:
            self.trials.pop(candidate.key, None)
            return None
        trial = Trial(number=len(self.trials), candidate=candidate, bound_gb=missed)
        return self.trials.setdefault(candidate.key, trial)

    def may_fit(self, candidate: Candidate, finished: Mapping[str, Trial]) -> bool:
        """Whether ``rule_out`` would let it be measured; nothing is written down."""
        return self._missed(candidate, finished) is None

    def reconsider(self, finished: Mapping[str, Trial]) -> None:
        """Forget those that the latest measurement has shown to be possible after all."""
        for trial in list(self.trials.values()):
            self.rule_out(trial.candidate, finished)

    def _missed(self, candidate: Candidate, finished: Mapping[str, Trial]) -> float | None:
        """The bound, where it misses the budget."""
        if self._bound is None or self._limit_gb is None or candidate == self._reference:
            return None
        bound_gb = self._bound(candidate, finished.values())
        return bound_gb if bound_gb is not None and bound_gb > self._limit_gb else None
