"""The directory that a run leaves behind: what is in place there is whole."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import TracebackType

from autoquant.errors import InputError
from autoquant.planner.budget import Budget
from autoquant.planner.plan import Plan
from autoquant.planner.study_directory import STUDY

PLAN_NAME = "plan.json"
_DEFAULT_PARENT = Path("autoquant-out")
_UNFINISHED = ".unfinished-"


class OutputDirectory:
    """A temporary directory that becomes ``path`` when ``commit`` is called, or vanishes.

    Raises:
        InputError: ``path`` holds files and ``overwrite`` is false, or cannot be written.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self.path = path
        _require_free(path, is_replaceable=overwrite)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        except OSError as error:
            raise InputError(f"Cannot write to {path.parent}: {error.strerror}.") from error

    def __enter__(self) -> OutputDirectory:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.partial, ignore_errors=True)

    def commit(self) -> Path:
        """Put everything in place; what stood there before goes only afterwards."""
        self.partial.chmod(0o755)
        if not self.path.exists():
            self.partial.rename(self.path)
            return self.path
        replaced = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.old.", dir=self.path.parent))
        self.path.rename(replaced / self.path.name)
        self.partial.rename(self.path)
        shutil.rmtree(replaced)
        return self.path


class ResumableOutput:
    """A directory that a study works in, and that the plan is put into when it is there.

    Args:
        path: The directory.
        kept: The entry that holds the study, which stays.
        overwrite: Whether other files that are there may go.

    Raises:
        InputError: ``path`` is a file, or holds files that are no study of ours.
    """

    def __init__(self, path: Path, kept: str, *, overwrite: bool = False) -> None:
        self.path = path
        self.study = path / kept
        self._kept = kept
        self._overwrite = overwrite
        _require_free(path, is_replaceable=overwrite or self.study.is_dir())

    def put(self, write: Callable[[Path], None]) -> None:
        """Let ``write`` fill a directory, and put what it wrote in place, the plan last.

        Raises:
            InputError: A file cannot be written.
        """
        try:
            with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=self.path) as name:
                write(Path(name))
                self._replace(Path(name))
        except OSError as error:
            raise InputError(f"Cannot write to {self.path}: {error.strerror or error}.") from error

    def _replace(self, partial: Path) -> None:
        # Without a plan the directory counts as unfinished, whatever else is there.
        (self.path / PLAN_NAME).unlink(missing_ok=True)
        written = sorted(partial.iterdir(), key=lambda entry: entry.name == PLAN_NAME)
        names = {entry.name for entry in written}
        for entry in self.path.iterdir():
            outdated = entry.name in names or entry.name.startswith(_UNFINISHED) or self._overwrite
            if outdated and entry not in {partial, self.study}:
                _remove(entry)
        for entry in written:
            entry.rename(self.path / entry.name)


def _require_free(path: Path, *, is_replaceable: bool) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"The output {path} is a file; choose a directory.")
    if path.is_dir() and any(path.iterdir()) and not is_replaceable:
        raise InputError(
            f"The output directory {path} holds files already; choose another, or pass "
            "--overwrite to replace it."
        )


def require_unfinished(directory: Path, budget: Budget) -> None:
    """Refuse to replace a finished plan by one for another budget.

    Raises:
        InputError: It would be replaced.
    """
    if is_finished(directory) and Plan.load_json(directory / PLAN_NAME).budget != budget:
        raise InputError(
            f"{directory} holds the plan for another budget; choose another --out (what was "
            "measured is used again), or pass --overwrite to replace the plan."
        )


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()


def default_directories(model: str, vram_gb: float | None) -> Iterator[Path]:
    """Names for a plan: ``autoquant-out/MODEL-16gb``, ``…-2``, ``…-3`` … that hold none yet."""
    name = Path(model).expanduser().name or "pipeline"
    name = f"{name}-{vram_gb:g}gb" if vram_gb is not None else name
    for number in count(1):
        candidate = _DEFAULT_PARENT / (name if number == 1 else f"{name}-{number}")
        is_unfinished = (candidate / STUDY).is_dir() and not is_finished(candidate)
        if is_unfinished or not candidate.exists():
            yield candidate


def is_finished(directory: Path) -> bool:
    """Whether a search came to its end here, and its plan is in place."""
    try:
        plan = json.loads((directory / PLAN_NAME).read_text(encoding="utf-8"))
        return not plan["search"].get("interrupted", False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
