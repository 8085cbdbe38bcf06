"""One measuring process, as the planner sees it: orders in, replies out, and how it ended."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import IO

from autoquant.errors import WorkerFailed, WorkerKilled
from autoquant.planner.messages import Entered, Order, Reply, read_reply
from autoquant.planner.patience import Patience
from autoquant.planner.phases import Phase
from autoquant.redaction import redacted

OnPhase = Callable[[Phase, float], None]
"""Takes a phase that has ended, and its seconds."""

WORKER = "autoquant.planner.worker"
_LOG_BYTES = 4096
_LOG_LINES = 8
# No program sends these to itself; the system sends SIGKILL when host memory ends.
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)


class MeasuringProcess:
    """A running worker: ``planner.worker``, or another module that serves like it."""

    def __init__(self, module: str = WORKER) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            encoding="utf-8",
            # Ctrl-C is for the planner, which then ends the worker.
            start_new_session=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        assert self._process.stdout is not None
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def ask(
        self, order: Order, patience: Patience | None = None, on_phase: OnPhase | None = None
    ) -> Reply:
        """Send an order and wait for its reply; without ``patience``, for as long as it takes.

        Raises:
            WorkerKilled: The process was killed from outside.
            WorkerFailed: It died, or a phase took longer than it may.
        """
        self._send(order)
        phase: Phase = "open"
        started = time.monotonic()
        while True:
            limit_s = None if patience is None else patience.limit_s(phase)
            left_s = None if limit_s is None else limit_s - (time.monotonic() - started)
            try:
                line = self._lines.get(timeout=None if left_s is None else max(0.0, left_s))
            except queue.Empty:
                raise WorkerFailed(
                    f"no answer within {limit_s:.0f} s in the phase {phase!r}, so it was stopped"
                ) from None
            if line is None:
                raise self._how_it_ended(phase)
            reply = read_reply(line)
            if on_phase is not None:
                on_phase(phase, time.monotonic() - started)
            if not isinstance(reply, Entered):
                return reply
            phase, started = reply.phase, time.monotonic()

    def end(self) -> None:
        """Kill the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._stderr):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue  # what was not sent is of no use to a dead process

    def _send(self, order: Order) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(order.model_dump_json() + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._how_it_ended("open") from None

    def _listen(self, stdout: IO[str]) -> None:
        with stdout:
            for line in stdout:
                self._lines.put(line)
        self._lines.put(None)

    def _how_it_ended(self, phase: Phase) -> WorkerFailed:
        status = self._process.wait()
        if status < 0:
            kind = WorkerKilled if -status in _FROM_OUTSIDE else WorkerFailed
            name = signal.Signals(-status).name
            return kind(f"the measuring process was killed by {name} in the phase {phase!r}")
        end = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, end - _LOG_BYTES))
        lines = self._stderr.read().decode("utf-8", errors="replace").strip().splitlines()
        said = redacted("; ".join(line.strip() for line in lines[-_LOG_LINES:]))
        return WorkerFailed(
            f"the measuring process ended with status {status}: {said or 'it said nothing'}"
        )
