"""A log of what happened to each trial: one JSON object a line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autoquant.errors import InputError
from autoquant.planner.progress import OnProgress, Progress
from autoquant.redaction import redacted

OnEvent = Callable[..., None]
"""Takes the event's name, and its facts as keyword arguments."""


class EventLog:
    """Appends events to a file; each line is written at once.

    Raises:
        InputError: The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # The last line of a run that was killed may be cut short.
        self._begin = "\n" if path.exists() and path.read_bytes()[-1:] not in (b"", b"\n") else ""

    def __call__(self, event: str, **facts: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps(
            {"time": now, "event": event, "process": os.getpid()}
            | {name: fact for name, fact in facts.items() if fact is not None}
        )
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{self._begin}{redacted(line)}\n")
        except OSError as error:
            raise InputError(f"Cannot write {self._path}: {error.strerror}.") from error
        self._begin = ""


def logged(on_progress: OnProgress, on_event: OnEvent) -> OnProgress:
    """``on_progress``, with each finished trial logged under its number."""

    def note(progress: Progress) -> None:
        trial = progress.trial
        if trial is not None:
            on_event(
                "trial",
                trial=trial.number,
                candidate=trial.candidate.label,
                digest=trial.candidate.digest,
                loss=trial.measured and trial.measured.loss,
                peak_gb=trial.measured and trial.measured.peak_gb,
                latency_s=trial.measured and trial.measured.latency_s.median,
                failure=trial.failure,
                stopped=(trial.measured and trial.measured.stopped) or None,
            )
        on_progress(progress)

    return note


def unheard(event: str, **facts: Any) -> None:
    """Log nothing."""
    del event, facts
