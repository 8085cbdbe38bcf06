"""A study on disk: what a search has measured, from the first trial on, so that it can go on."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout
from pydantic import ValidationError

from autoquant.errors import InputError, StudyDiffers, StudyInUse
from autoquant.files import write_text
from autoquant.planner.events import EventLog
from autoquant.planner.identity import Identity
from autoquant.planner.measurement_store import MeasurementStore

STUDY = "study"
_LOCK = "lock"
_IDENTITY = "identity.json"


class StudyDirectory:
    """A locked directory that holds one study.

    Use it as a context manager. What was measured stays when it ends; a directory in which nothing
    was measured vanishes.

    Args:
        root: The directory; made if need be.
        identity: What is to be measured; ``None`` for what cannot be identified, which is never
            resumed.
        fresh: Whether to forget what an earlier run measured.
        overwrite: Whether to forget it if it is of something else.

    Attributes:
        identity: What is to be measured.
        store: The measurements.
        events: The log beside them.

    Raises:
        StudyInUse: Another run works in this directory.
        StudyDiffers: It holds the study of another model, workload, metric, device or versions.
        InputError: The directory cannot be written, or is damaged.
    """

    def __init__(
        self,
        root: Path,
        identity: Identity | None,
        *,
        fresh: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.root = root
        self.identity = identity
        self.store = MeasurementStore(root)
        self._path = root / _IDENTITY
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(root / _LOCK)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StudyInUse(
                f"Another run is measuring in {root}; wait until it ends, or choose another --out."
            ) from None
        except OSError as error:
            raise InputError(f"Cannot write to {root}: {error.strerror}.") from error
        try:
            if fresh or (overwrite and not self._is_ours()):
                self._clear()
            self._claim()
        except BaseException:
            self._lock.release()
            raise
        self.events = EventLog(root / "events.jsonl")

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been measured yet."""
        return not (self.root / "trials").is_dir()

    def __enter__(self) -> StudyDirectory:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.is_empty:
            shutil.rmtree(self.root, ignore_errors=True)
            with contextlib.suppress(OSError):  # not empty, or not ours
                self.root.parent.rmdir()
        self._lock.release()

    def _claim(self) -> None:
        """Write whose study this is, or check that it is ours."""
        if not self._path.exists():
            text = "null" if self.identity is None else self.identity.model_dump_json(indent=1)
            write_text(self._path, text + "\n")
            return
        held = _read_identity(self._path)
        if held is None or self.identity is None:
            raise StudyDiffers(
                f"{self.root} holds the study of a pipeline in memory, or one is to be measured "
                "now: it cannot be told whether they are the same. Pass --fresh to measure anew."
            )
        differences = held.differences(self.identity)
        if differences:
            raise StudyDiffers(
                f"{self.root} holds another study: {'; '.join(differences)}. Choose another --out, "
                "or pass --fresh to forget it and measure anew."
            )

    def _is_ours(self) -> bool:
        try:
            return self.identity is not None and _read_identity(self._path) == self.identity
        except InputError:
            return False

    def _clear(self) -> None:
        for entry in self.root.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != _LOCK:
                entry.unlink()


def _read_identity(path: Path) -> Identity | None:
    try:
        text = path.read_text(encoding="utf-8")
        return None if json.loads(text) is None else Identity.model_validate_json(text)
    except (OSError, ValueError, RecursionError, ValidationError) as error:
        raise InputError(
            f"{path} is damaged, so nobody knows what the measurements beside it are of; pass "
            "--fresh to measure anew."
        ) from error
