"""Measure in a process of its own, so that a crash, a hang or a leak is one failed trial."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from autoquant import errors
from autoquant.errors import AutoquantError, CandidateFailed, WorkerFailed
from autoquant.planner.candidate import Candidate
from autoquant.planner.measurement import Answer, Comparison
from autoquant.planner.messages import (
    Compare,
    Failed,
    Measure,
    Order,
    Prepare,
    Refused,
    Reply,
    read_reply,
)
from autoquant.planner.parameters import unquantized
from autoquant.planner.request import Preparation, Request
from autoquant.planner.workload import Workload

# A candidate may be this many times slower than everything that was done for the reference …
_PATIENCE = 10.0
# … and at least has the time to compile a kernel on first use, which quanto does.
_LEAST_PATIENCE_S = 300.0
_LOG_LINES = 8


class Worker:
    """One measuring process."""

    def __init__(self, log: Path) -> None:
        self._log = log
        with log.open("a") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "autoquant.planner.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                encoding="utf-8",
                # Ctrl-C is for the planner, which then ends the worker.
                start_new_session=True,
            )
        self._lines: queue.Queue[str | None] = queue.Queue()
        assert self._process.stdout is not None
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()

    def ask(self, order: Order, patience_s: float | None = None) -> Reply:
        """Send an order and wait for its reply.

        Raises:
            WorkerFailed: The process died, or took longer than ``patience_s``.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(order.model_dump_json() + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=patience_s)
        except BrokenPipeError:
            line = None
        except queue.Empty:
            raise WorkerFailed(f"no answer within {patience_s:.0f} s, so it was stopped") from None
        if line is None:
            raise WorkerFailed(self._last_words())
        return read_reply(line)

    def end(self) -> None:
        """Kill the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()

    def _listen(self, stdout: IO[str]) -> None:
        for line in stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _last_words(self) -> str:
        status = self._process.wait()
        if status < 0:
            return f"the measuring process was killed by {signal.Signals(-status).name}"
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        said = "; ".join(line.strip() for line in lines[-_LOG_LINES:])
        return f"the measuring process ended with status {status}: {said or 'it said nothing'}"


class ProcessEvaluator:
    """Measures candidates in a worker, which is replaced after any fault.

    Attributes:
        preparation: What is known before the search; the worker has measured the reference.

    Raises:
        WorkerFailed: The worker could not even measure the reference.
        AutoquantError: What was asked for is wrong, as the worker found.
    """

    def __init__(self, request: Request, image_root: Path) -> None:
        self._request = request
        self._image_root = image_root
        self._worker: Worker | None = None
        started = time.monotonic()
        self.preparation = self._start()
        self._patience_s = max(_LEAST_PATIENCE_S, _PATIENCE * (time.monotonic() - started))

    def __enter__(self) -> ProcessEvaluator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def answer(self, candidate: Candidate) -> Answer:
        """Measure one candidate.

        Raises:
            CandidateFailed: It could not be measured, or took the worker down with it.
        """
        if candidate == unquantized(self.preparation.space, self.preparation.runtime):
            return self.preparation.reference
        reply = self._ask(Measure(candidate=candidate))
        if isinstance(reply, Answer):
            return reply
        raise _as_error(reply)

    def compare(self, candidate: Candidate, workload: Workload) -> Comparison:
        """Compare one candidate with the unquantized pipeline on any workload.

        Raises:
            CandidateFailed: It could not be drawn, or took the worker down with it.
        """
        reply = self._ask(Compare(candidate=candidate, workload=workload))
        if isinstance(reply, Comparison):
            return reply
        raise _as_error(reply)

    def _ask(self, order: Order) -> Reply:
        try:
            if self._worker is None:
                self._start()
            assert self._worker is not None
            reply = self._worker.ask(order, self._patience_s)
        except WorkerFailed as failure:
            self._end()
            raise CandidateFailed(str(failure)) from failure
        if isinstance(reply, Failed):
            raise CandidateFailed(reply.reason)
        return reply

    def _start(self) -> Preparation:
        self._worker = Worker(self._image_root / "worker.log")
        try:
            reply = self._worker.ask(
                Prepare(request=self._request, image_root=str(self._image_root))
            )
        except BaseException:
            self._end()
            raise
        if isinstance(reply, Preparation):
            return reply
        self._end()
        raise _as_error(reply)

    def _end(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None


def _as_error(reply: Reply) -> AutoquantError:
    if isinstance(reply, Refused):
        kind: type[AutoquantError] = getattr(errors, reply.error)
        return kind(reply.message)
    reason = reply.reason if isinstance(reply, Failed) else f"it sent a {type(reply).__name__}"
    return WorkerFailed(f"The reference could not be measured: {reason}")
