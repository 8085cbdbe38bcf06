"""Measure what nobody else has measured or is measuring, and let everybody know."""

from __future__ import annotations

import time

from autoquant.errors import CandidateFailed, MeasuredElsewhere
from autoquant.planner.candidate import Candidate
from autoquant.planner.evaluator import AnsweringEvaluator
from autoquant.planner.measurement import Answer, Comparison
from autoquant.planner.measurement_store import ComparedRecord, Record
from autoquant.planner.racing import Race
from autoquant.planner.shared_study import SharedStudy
from autoquant.planner.workload import Workload
from autoquant.redaction import redacted


class SharedEvaluator:
    """Asks the shared study first, and keeps every answer there."""

    def __init__(self, shared: SharedStudy, own: AnsweringEvaluator) -> None:
        self._shared = shared
        self._own = own

    def answer(self, candidate: Candidate, race: Race | None = None) -> Answer:
        """Answer one candidate, which may have lost another race: its best is in this study too.

        Raises:
            MeasuredElsewhere: Someone else is measuring it.
            CandidateFailed: It could not be measured, by whomever.
        """
        record = self._shared.record(candidate)
        if record is None:
            record = self._measure(candidate, race)
        if record.answer is None:
            raise CandidateFailed(record.failure or "", record.bound_gb)
        return record.answer

    def compare(
        self, candidate: Candidate, workload: Workload, *, timed: bool = True
    ) -> Comparison:
        """Compare on any workload, unless someone has done that.

        Nobody claims a comparison: it takes less than a trial, and two that draw the same at one
        moment do no harm.

        Raises:
            CandidateFailed: It could not be drawn, by whomever.
        """
        record = self._shared.comparison(candidate, workload, timed)
        if record is None:
            record = ComparedRecord(candidate=candidate, workload=workload, timed=timed)
            try:
                comparison = self._own.compare(candidate, workload, timed=timed)
                record = record.model_copy(update={"comparison": comparison})
            except CandidateFailed as failure:
                record = record.model_copy(update={"failure": redacted(str(failure))})
            self._shared.keep_comparison(record)
        if record.comparison is None:
            raise CandidateFailed(record.failure or "")
        return record.comparison

    def _measure(self, candidate: Candidate, race: Race | None) -> Record:
        claim = self._shared.claim(candidate)
        if claim is None:
            raise MeasuredElsewhere(f"{candidate.label} is being measured elsewhere.")
        started = time.monotonic()
        try:
            with self._shared.beating(claim):
                answer = self._own.answer(candidate, race)
            record = Record(candidate=candidate, answer=answer)
        except CandidateFailed as failure:
            record = Record(
                candidate=candidate, failure=redacted(str(failure)), bound_gb=failure.bound_gb
            )
        except BaseException:
            self._shared.release(claim)
            raise
        record = record.model_copy(update={"seconds": time.monotonic() - started})
        self._shared.finish(claim, record)
        return record
