"""What answers a candidate with a measurement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from autoquant.errors import CandidateFailed
from autoquant.planner.candidate import Candidate
from autoquant.planner.measurement import Measured


class Evaluator(Protocol):
    """Answers each candidate; the search knows nothing else of the machine."""

    def measure(self, candidate: Candidate) -> Measured:
        """Measure one candidate.

        Raises:
            CandidateFailed: It could not be measured; the message is the reason.
        """


class RecordedEvaluator:
    """Answers from measurements that were made before, keyed by ``Candidate.key``."""

    def __init__(self, measurements: Mapping[str, Measured]) -> None:
        self._measurements = dict(measurements)

    def measure(self, candidate: Candidate) -> Measured:
        try:
            return self._measurements[candidate.key]
        except KeyError:
            raise CandidateFailed(f"No measurement is recorded for {candidate.label}.") from None
