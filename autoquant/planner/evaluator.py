"""What answers a candidate with a measurement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from autoquant.errors import CandidateFailed
from autoquant.planner.candidate import Candidate
from autoquant.planner.measurement import Answer, Comparison, Measured
from autoquant.planner.racing import Race, stopped
from autoquant.planner.workload import Workload


class Evaluator(Protocol):
    """Answers each candidate; the search knows nothing else of the machine."""

    def measure(self, candidate: Candidate, race: Race | None = None) -> Measured:
        """Measure one candidate, until it has lost ``race``.

        Raises:
            CandidateFailed: It could not be measured; the message is the reason.
        """


class Comparer(Protocol):
    """Compares candidates with the unquantized pipeline on any workload."""

    def compare(
        self, candidate: Candidate, workload: Workload, *, timed: bool = True
    ) -> Comparison:
        """Draw ``workload`` with one candidate, as it will run, and score the images.

        What is not ``timed`` may take text embeddings that were computed before.

        Raises:
            CandidateFailed: It could not be drawn; the message is the reason.
        """


class AnsweringEvaluator(Comparer, Protocol):
    """Measures candidates, and tells what their components are made of."""

    def answer(self, candidate: Candidate, race: Race | None = None) -> Answer:
        """Measure one candidate, until it has lost ``race``.

        Raises:
            CandidateFailed: It could not be measured; the message is the reason.
        """


class Recorder:
    """Asks another evaluator and keeps its answers.

    Attributes:
        answers: Every answer, by ``Candidate.key``.
    """

    def __init__(self, evaluator: AnsweringEvaluator) -> None:
        self._evaluator = evaluator
        self.answers: dict[str, Answer] = {}

    def measure(self, candidate: Candidate, race: Race | None = None) -> Measured:
        self.answers[candidate.key] = self._evaluator.answer(candidate, race)
        return self.answers[candidate.key].measured


class RecordedEvaluator:
    """Answers from measurements that were made before, keyed by ``Candidate.key``.

    Args:
        measurements: Whole ones.
        images_a_call: The batch size of their workload: a race is looked at after each call.
    """

    def __init__(self, measurements: Mapping[str, Measured], images_a_call: int = 1) -> None:
        self._measurements = dict(measurements)
        self._images_a_call = images_a_call

    def measure(self, candidate: Candidate, race: Race | None = None) -> Measured:
        try:
            measured = self._measurements[candidate.key]
        except KeyError:
            raise CandidateFailed(f"No measurement is recorded for {candidate.label}.") from None
        return measured if race is None else stopped(measured, race, self._images_a_call)
