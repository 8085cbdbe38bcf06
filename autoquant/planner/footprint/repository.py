"""Where headers and configs are read from: files by name, sizes, and ranges of bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from autoquant.errors import InputError

# The index of a model in a thousand shards of a thousand tensors is 10 MB.
_LARGEST_JSON = 16_000_000


class Repository(Protocol):
    """The files of one model, local or on the hub."""

    @property
    def name(self) -> str:
        """What to call it in errors."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each file by its path with forward slashes."""

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read a range; fewer bytes come back only where the file ends."""


class LocalRepository:
    """A directory, or the one file ``only``, on this machine."""

    def __init__(self, directory: Path, only: Path | None = None) -> None:
        self._directory = directory
        self._only = only
        self.name = str(only or directory)

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each file at most two levels down, where pipelines keep their components."""
        found = (
            [self._only]
            if self._only
            else [
                *self._directory.glob("*"),
                *self._directory.glob("*/*"),
            ]
        )
        return {
            path.relative_to(self._directory).as_posix(): path.stat().st_size
            for path in found
            if path.is_file()
        }

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read a range.

        Raises:
            InputError: The file cannot be read.
        """
        try:
            with (self._directory / path).open("rb") as file:
                file.seek(offset)
                return file.read(length)
        except OSError as error:
            raise InputError(
                f"Cannot read {self._directory / path}: {error.strerror or error}."
            ) from error


def read_json(repository: Repository, path: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: The file is missing, too large to be a config, or no JSON object.
    """
    size = repository.sizes.get(path)
    if size is None:
        raise InputError(f"{repository.name} has no {path}; fetch the model again.")
    if size > _LARGEST_JSON:
        raise InputError(
            f"{repository.name}: {path} has {size} bytes, more than any config; fetch it again."
        )
    try:
        content = json.loads(repository.read(path, 0, size).decode("utf-8"))
    except RecursionError as error:
        raise InputError(f"{repository.name}: {path} nests without end.") from error
    except ValueError as error:
        raise InputError(f"{repository.name}: {path} is no JSON ({error}).") from error
    if not isinstance(content, dict):
        raise InputError(f"{repository.name}: {path} must hold a JSON object.")
    return content
