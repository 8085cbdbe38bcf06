"""Measure in a process of its own, so that a crash, a hang or a leak is one failed trial."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from autoquant import errors
from autoquant.errors import (
    AutoquantError,
    CandidateFailed,
    OutOfMemory,
    WorkerFailed,
    WorkerKilled,
)
from autoquant.planner.candidate import Candidate
from autoquant.planner.events import OnEvent, unheard
from autoquant.planner.health import Health
from autoquant.planner.measurement import Answer, Comparison
from autoquant.planner.measuring_process import WORKER, MeasuringProcess
from autoquant.planner.messages import (
    Check,
    Compare,
    Failed,
    Measure,
    Order,
    Prepare,
    Refused,
    Reply,
)
from autoquant.planner.parameters import unquantized
from autoquant.planner.patience import Patience
from autoquant.planner.phases import Phase
from autoquant.planner.quantities import gigabytes
from autoquant.planner.racing import Race
from autoquant.planner.request import Preparation, Request
from autoquant.planner.workload import Workload

# Whoever killed the process may have meant another one; twice means that it is the candidate,
# for instance one that ends the host's memory.
_MOST_KILLS = 2


class ProcessEvaluator:
    """Measures candidates in a worker, which is replaced after any fault.

    Args:
        request: What to open.
        image_root: Below it the images of each candidate are written.
        on_event: Hears of each worker, and of the phases of each measurement.
        worker: The module that measures.
        vram_gb: Device memory in GiB that candidates which keep it are held to.

    Attributes:
        preparation: What is known before the search; the worker has measured the reference.

    Raises:
        WorkerFailed: The worker could not even measure the reference.
        AutoquantError: What was asked for is wrong, as the worker found.
    """

    def __init__(
        self,
        request: Request,
        image_root: Path,
        on_event: OnEvent = unheard,
        worker: str = WORKER,
        vram_gb: float | None = None,
    ) -> None:
        self._module = worker
        self._vram_gb = vram_gb
        self._before: Health | None = None
        self._most_of_others_gb = 0.0
        self._request = request
        self._image_root = image_root
        self._on_event = on_event
        self._worker: MeasuringProcess | None = None
        self._reference_s: dict[Phase, float] = {}
        self.preparation = self._start()
        self._patience = Patience(dict(self._reference_s))

    def __enter__(self) -> ProcessEvaluator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end("no longer needed")

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the plan should know of how it was measured."""
        if not self._most_of_others_gb:
            return ()
        return (
            f"Other processes held up to {gigabytes(self._most_of_others_gb)} of the device "
            "meanwhile: latencies may be better without them.",
        )

    def answer(self, candidate: Candidate, race: Race | None = None) -> Answer:
        """Measure one candidate, until it has lost ``race``.

        Raises:
            CandidateFailed: It could not be measured, or took the worker down with it.
            AutoquantError: Something else than the candidate is wrong, such as a full disk.
        """
        if candidate == unquantized(self.preparation.space, self.preparation.runtime):
            return self.preparation.reference
        reply = self._ask(Measure(candidate=candidate, limit_gb=self._vram_gb, race=race))
        if isinstance(reply, Answer):
            return reply
        raise _as_error(reply)

    def compare(
        self, candidate: Candidate, workload: Workload, *, timed: bool = True
    ) -> Comparison:
        """Compare one candidate with the unquantized pipeline on any workload.

        Raises:
            CandidateFailed: It could not be drawn, or took the worker down with it.
        """
        reply = self._ask(Compare(candidate=candidate, workload=workload, timed=timed))
        if isinstance(reply, Comparison):
            return reply
        raise _as_error(reply)

    def _ask(self, order: Order) -> Reply:
        reply = self._answered(order)
        self._require_health()
        if isinstance(reply, Failed):
            kind = CandidateFailed if reply.bound_gb is None else OutOfMemory
            raise kind(reply.reason, reply.bound_gb)
        return reply

    def _answered(self, order: Order) -> Reply:
        kills = 0
        while True:
            try:
                if self._worker is None:
                    self._start()
                assert self._worker is not None
                return self._worker.ask(order, self._patience, self._note_phase)
            except WorkerKilled as failure:
                self._end(str(failure))
                kills += 1
                if kills == _MOST_KILLS:
                    raise CandidateFailed(f"{failure}, {kills} times") from failure
            except WorkerFailed as failure:
                self._end(str(failure))
                raise CandidateFailed(str(failure)) from failure

    def _start(self) -> Preparation:
        try:
            reply = self._prepared()
        except WorkerKilled:
            reply = self._prepared()
        if isinstance(reply, Preparation):
            return reply
        self._end("it could not measure the reference")
        raise _as_error(reply)

    def _prepared(self) -> Reply:
        self._worker = MeasuringProcess(self._module)
        self._on_event("worker started", worker=self._worker.pid)
        order = Prepare(request=self._request, image_root=str(self._image_root))
        try:
            reply = self._worker.ask(order, on_phase=self._note_reference_phase)
            self._before = self._check() if isinstance(reply, Preparation) else None
            return reply
        except BaseException as error:
            self._end(str(error) or type(error).__name__)
            raise

    def _require_health(self) -> None:
        """Replace a worker that does not give memory back, or whose device no longer answers."""
        try:
            now = self._check()
        except WorkerFailed as failure:
            self._end(f"after a trial: {failure}")
            return
        assert self._before is not None
        reference = self.preparation.reference.measured
        kept = now.kept(
            self._before,
            reference.weights_gb,
            is_accelerator=self.preparation.device.kind != "cpu",
        )
        if kept:
            self._end(f"a trial left {gigabytes(kept)} behind on the device")

    def _check(self) -> Health:
        assert self._worker is not None
        health = self._worker.ask(Check(), Patience())
        if not isinstance(health, Health):
            raise WorkerFailed(f"it sent a {type(health).__name__} instead of its health")
        if health.noticed_others_gb > self._most_of_others_gb:
            self._most_of_others_gb = health.noticed_others_gb
            self._on_event("others use the device", gb=round(self._most_of_others_gb, 3))
        return health

    def _note_phase(self, phase: Phase, seconds: float) -> None:
        worker = None if self._worker is None else self._worker.pid
        self._on_event("phase", phase=phase, seconds=round(seconds, 3), worker=worker)

    def _note_reference_phase(self, phase: Phase, seconds: float) -> None:
        self._reference_s[phase] = max(seconds, self._reference_s.get(phase, 0.0))
        self._note_phase(phase, seconds)

    def _end(self, why: str) -> None:
        if self._worker is not None:
            self._worker.end()
            self._on_event("worker ended", worker=self._worker.pid, failure=why)
            self._worker = None


def _as_error(reply: Reply) -> AutoquantError:
    if isinstance(reply, Refused):
        kind: type[AutoquantError] = getattr(errors, reply.error)
        return kind(reply.message)
    reason = reply.reason if isinstance(reply, Failed) else f"it sent a {type(reply).__name__}"
    return WorkerFailed(f"The reference could not be measured: {reason}")
