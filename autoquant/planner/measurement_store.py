"""Measurements as files: one JSON file a candidate, written whole, and its images.

A file that is cut short, changed or made by another version is no measurement: it is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from autoquant.errors import InputError
from autoquant.files import write_text
from autoquant.planner.candidate import Candidate
from autoquant.planner.measurement import Answer, Comparison
from autoquant.planner.request import Preparation
from autoquant.planner.workload import Workload

_Model = TypeVar("_Model", bound=BaseModel)


class Record(BaseModel):
    """What became of one candidate: an answer, or the reason why there is none.

    Attributes:
        seconds: Wall seconds that it took.
        bound_gb: After an out of memory: how much was not enough, in GiB.
        images: sha256 of each image file, by name.
    """

    model_config = ConfigDict(frozen=True)

    candidate: Candidate
    answer: Answer | None = None
    failure: str | None = None
    bound_gb: float | None = None
    seconds: float = 0.0
    images: dict[str, str] = {}


class ComparedRecord(BaseModel):
    """What became of one candidate on one workload: a comparison, or why there is none."""

    model_config = ConfigDict(frozen=True)

    candidate: Candidate
    workload: Workload
    timed: bool = True
    comparison: Comparison | None = None
    failure: str | None = None

    @property
    def question(self) -> tuple[str, str]:
        """Short names of the candidate, and of what was asked of it."""
        asked = self.workload.key + ("" if self.timed else " untimed")
        return self.candidate.digest, hashlib.sha256(asked.encode()).hexdigest()[:16]


class MeasurementStore:
    """A directory of records.

    Args:
        root: Where the records lie; made when the first is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.image_root = root / "images"

    def read(self, candidate: Candidate) -> Record | None:
        """The record of ``candidate``, or ``None`` if there is none that can be trusted."""
        record = _read(self._path(candidate), Record)
        return record if record is not None and record.candidate == candidate else None

    def write(self, record: Record) -> None:
        """Keep a record; its images are in ``image_root`` already.

        Raises:
            InputError: The file cannot be written.
        """
        _write(self._path(record.candidate), record)

    def read_comparison(
        self, candidate: Candidate, workload: Workload, timed: bool = True
    ) -> ComparedRecord | None:
        """How ``candidate`` did on ``workload``, or ``None`` if nobody knows.

        What was ``timed`` answers in any case.
        """
        wanted = ComparedRecord(candidate=candidate, workload=workload, timed=timed)
        record = _read(self._comparison(wanted), ComparedRecord)
        if record is not None and record.question == wanted.question:
            return record
        return None if timed else self.read_comparison(candidate, workload)

    def write_comparison(self, record: ComparedRecord) -> None:
        """Keep a comparison.

        Raises:
            InputError: The file cannot be written.
        """
        _write(self._comparison(record), record)

    def copy(self, record: Record, source: MeasurementStore) -> None:
        """Keep a record of another store, and its images where they are whole.

        Raises:
            InputError: A file cannot be written.
        """
        if source.holds_images(record) and not self.holds_images(record):
            _link_directory(
                source.image_root / record.candidate.digest,
                self.image_root / record.candidate.digest,
            )
        self.write(record)

    def holds_images(self, record: Record) -> bool:
        """Whether every image of ``record`` is here as it was drawn."""
        directory = self.image_root / record.candidate.digest
        return bool(record.images) and image_hashes(directory) == record.images

    def read_preparation(self, key: str) -> Preparation | None:
        """What was known before a search, or ``None``."""
        return _read(self.root / "preparations" / f"{key[:16]}.json", Preparation)

    def write_preparation(self, key: str, preparation: Preparation) -> None:
        """Keep what is known before a search.

        Raises:
            InputError: The file cannot be written.
        """
        _write(self.root / "preparations" / f"{key[:16]}.json", preparation)

    def _path(self, candidate: Candidate) -> Path:
        return self.root / "trials" / f"{candidate.digest}.json"

    def _comparison(self, record: ComparedRecord) -> Path:
        return self.root / "comparisons" / f"{'-'.join(record.question)}.json"


def image_hashes(directory: Path) -> dict[str, str]:
    """The sha256 of each image in a directory, by name; empty where there is none."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.glob("*.png"))
    }


def _write(path: Path, model: BaseModel) -> None:
    content = model.model_dump(mode="json")
    write_text(path, json.dumps({"sha256": _checksum(content), "content": content}, indent=1))


def _read(path: Path, model: type[_Model]) -> _Model | None:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        if entries["sha256"] != _checksum(entries["content"]):
            return None
        return model.model_validate_json(json.dumps(entries["content"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError, ValidationError):
        return None


def _checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _link_directory(source: Path, target: Path) -> None:
    """Let the same files appear in ``target``, without a second copy where the disk can do that."""
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(source, unfinished, copy_function=_link)
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise InputError(f"Cannot write {target}: {error.strerror or error}.") from error


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
