"""Answer from what was measured before; measure the rest, and keep it at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from autoquant.errors import CandidateFailed
from autoquant.planner.candidate import Candidate
from autoquant.planner.evaluator import AnsweringEvaluator
from autoquant.planner.events import OnEvent, unheard
from autoquant.planner.measurement import Answer, Comparison
from autoquant.planner.measurement_store import (
    ComparedRecord,
    MeasurementStore,
    Record,
    image_hashes,
)
from autoquant.planner.parameters import unquantized
from autoquant.planner.racing import Race, is_enough
from autoquant.planner.request import Preparation
from autoquant.planner.workload import Workload
from autoquant.redaction import redacted

Start = Callable[[], tuple[Preparation, AnsweringEvaluator]]
"""Measures the reference; returns what is known before the search, and what measures candidates."""


class StoredEvaluator:
    """Asks its stores first; what measures is started when the first answer is missing.

    Args:
        study: Where every answer and failure is kept.
        start: Starts what measures; its images must go to ``study.image_root``.
        cache: A second store, shared by the studies of one model; it is asked after the study.
        preparation_key: The name of what is known before the search.
        vram_gb: The memory budget in GiB; an earlier out of memory below it proves nothing.
        on_event: Hears of every answer, and where it came from.
    """

    def __init__(
        self,
        study: MeasurementStore,
        start: Start,
        cache: MeasurementStore | None = None,
        preparation_key: str = "preparation",
        vram_gb: float | None = None,
        on_event: OnEvent = unheard,
    ) -> None:
        self._study = study
        self._stores = [study] if cache is None else [study, cache]
        self._start = start
        self._key = preparation_key
        self._vram_gb = vram_gb
        self._on_event = on_event
        self._device: AnsweringEvaluator | None = None
        self.preparation = self._stored_preparation() or self._prepare()

    def answer(self, candidate: Candidate, race: Race | None = None) -> Answer:
        """Answer one candidate, which is measured until it has lost ``race``.

        Raises:
            CandidateFailed: It could not be measured, now or before.
        """
        record = self._stored(candidate)
        if record is None or not _is_enough(record, race):
            record = self._measure(candidate, race)
        else:
            self._on_event("recalled", **_named(candidate), failure=record.failure)
        if record.answer is None:
            raise CandidateFailed(record.failure or "")
        return record.answer

    def compare(
        self, candidate: Candidate, workload: Workload, *, timed: bool = True
    ) -> Comparison:
        """Compare one candidate with the unquantized pipeline on any workload.

        Raises:
            CandidateFailed: It could not be drawn, now or before.
        """
        found = [store.read_comparison(candidate, workload, timed) for store in self._stores]
        record = next((record for record in found if record is not None), None)
        if record is None:
            record = self._draw(candidate, workload, timed)
        for store, held in zip(self._stores, found, strict=True):
            if held is None:
                store.write_comparison(record)
        if record.comparison is None:
            raise CandidateFailed(record.failure or "")
        return record.comparison

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the plan should know of how this run measured."""
        return () if self._device is None else tuple(getattr(self._device, "notes", ()))

    def images_of(self, candidate: Candidate) -> Path:
        """The directory of a measured candidate's images, which are drawn again if they are lost.

        Raises:
            CandidateFailed: They are lost and cannot be drawn again.
        """
        record = self._stored(candidate)
        directory = self._study.image_root / candidate.digest
        if record is None or not self._study.holds_images(record):
            self._on_event("images drawn again", **_named(candidate))
            self._measuring().answer(candidate)
            if record is not None:
                self._keep(record.model_copy(update={"images": image_hashes(directory)}))
        return directory

    def _stored_preparation(self) -> Preparation | None:
        for store in self._stores:
            preparation = store.read_preparation(self._key)
            if preparation is None:
                continue
            reference = self._stored(unquantized(preparation.space, preparation.runtime))
            if reference is not None and reference.answer == preparation.reference:
                self._study.write_preparation(self._key, preparation)
                return preparation
        return None

    def _prepare(self) -> Preparation:
        started = time.monotonic()
        self._on_event("reference started")
        preparation, self._device = self._start()
        reference = unquantized(preparation.space, preparation.runtime)
        seconds = time.monotonic() - started
        self._keep(self._record(reference, preparation.reference, None, seconds))
        for store in self._stores:
            store.write_preparation(self._key, preparation)
        self._on_event("reference measured", seconds=round(seconds, 3))
        return preparation

    def _measuring(self) -> AnsweringEvaluator:
        if self._device is None:
            _, self._device = self._start()
        return self._device

    def _stored(self, candidate: Candidate) -> Record | None:
        for store in self._stores:
            record = store.read(candidate)
            if record is None or self._proves_nothing(record):
                continue
            if store is not self._study:
                self._study.copy(record, store)
            return record
        return None

    def _proves_nothing(self, record: Record) -> bool:
        """Whether it ran out of less memory than there may be now."""
        if record.bound_gb is None:
            return False
        return self._vram_gb is None or record.bound_gb < self._vram_gb

    def _measure(self, candidate: Candidate, race: Race | None) -> Record:
        device = self._measuring()
        started = time.monotonic()
        self._on_event("started", **_named(candidate))
        try:
            answer, failure = device.answer(candidate, race), None
        except CandidateFailed as error:
            answer, failure = None, error
        record = self._record(candidate, answer, failure, time.monotonic() - started)
        self._keep(record)
        self._on_event(
            "failed" if failure else "measured",
            **_named(candidate),
            seconds=round(record.seconds, 3),
            failure=record.failure,
        )
        return record

    def _draw(self, candidate: Candidate, workload: Workload, timed: bool) -> ComparedRecord:
        device = self._measuring()
        started = time.monotonic()
        failure = comparison = None
        try:
            comparison = device.compare(candidate, workload, timed=timed)
        except CandidateFailed as error:
            failure = redacted(str(error))
        self._on_event(
            "compared",
            **_named(candidate),
            seconds=round(time.monotonic() - started, 3),
            failure=failure,
        )
        return ComparedRecord(
            candidate=candidate,
            workload=workload,
            timed=timed,
            comparison=comparison,
            failure=failure,
        )

    def _record(
        self,
        candidate: Candidate,
        answer: Answer | None,
        failure: CandidateFailed | None,
        seconds: float,
    ) -> Record:
        return Record(
            candidate=candidate,
            answer=answer,
            failure=None if failure is None else redacted(str(failure)),
            bound_gb=None if failure is None else failure.bound_gb,
            seconds=seconds,
            images=image_hashes(self._study.image_root / candidate.digest) if answer else {},
        )

    def _keep(self, record: Record) -> None:
        self._study.write(record)
        for store in self._stores[1:]:
            store.copy(record, self._study)


def _is_enough(record: Record, race: Race | None) -> bool:
    return record.answer is None or is_enough(record.answer.measured, race)


def _named(candidate: Candidate) -> dict[str, str]:
    return {"candidate": candidate.label, "digest": candidate.digest}
