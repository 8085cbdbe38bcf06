"""The directory that a run leaves behind, put in place in one rename at the end."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from autoquant.errors import InputError

_DEFAULT_PARENT = Path("autoquant-out")


class OutputDirectory:
    """A temporary directory that becomes ``path`` when ``commit`` is called, or vanishes.

    Raises:
        InputError: ``path`` holds files and ``overwrite`` is false, or cannot be written.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self.path = path
        if path.exists() and not path.is_dir():
            raise InputError(f"The output {path} is a file; choose a directory.")
        if path.is_dir() and any(path.iterdir()) and not overwrite:
            raise InputError(
                f"The output directory {path} holds files already; choose another, or pass "
                "--overwrite to replace it."
            )
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


def default_directory(model: str, vram_gb: float | None) -> Path:
    """The first free name of ``autoquant-out/MODEL-16gb``, ``…-2``, ``…-3`` …"""
    name = Path(model).expanduser().name or "pipeline"
    name = f"{name}-{vram_gb:g}gb" if vram_gb is not None else name
    candidate, number = _DEFAULT_PARENT / name, 1
    while candidate.exists():
        number += 1
        candidate = _DEFAULT_PARENT / f"{name}-{number}"
    return candidate
