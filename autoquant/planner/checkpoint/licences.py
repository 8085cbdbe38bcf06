"""Carry the licence of the original pipeline into what is made of it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from autoquant.errors import InputError
from autoquant.planner.source import DEMO, PipelineSource

_PATTERNS = ("LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "USE_POLICY*", "*license*", "*LICENSE*")
_README = "README.md"
_FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---", re.DOTALL)
_LICENCE_KEYS = ("license", "license_name", "license_link")
_LARGEST_BYTES = 1_000_000


def copy_licences(source: PipelineSource, directory: Path, target: Path) -> tuple[str, ...]:
    """Copy the licence files of a pipeline, its components' own included.

    Args:
        source: The original pipeline.
        directory: Where it is on this machine.
        target: The new checkpoint.

    Returns:
        Their relative paths.

    Raises:
        InputError: They cannot be fetched.
    """
    directory = _with_licences(source, directory)
    names = []
    for path in _licence_files(directory):
        name = path.relative_to(directory)
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / name)
        names.append(str(name))
    return tuple(names)


def licence_entries(directory: Path) -> dict[str, Any]:
    """What the original model card says about its licence, as the new card repeats it."""
    readme = directory / _README
    if not readme.is_file():
        return {}
    found = _FRONT_MATTER.match(readme.read_text(encoding="utf-8", errors="replace"))
    try:
        entries = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        return {}  # a card that cannot be read says nothing
    if not isinstance(entries, dict):
        return {}
    return {key: entries[key] for key in _LICENCE_KEYS if isinstance(entries.get(key), str)}


def is_hub_id(source: PipelineSource) -> bool:
    """Whether the pipeline has a repository of its own."""
    return source.location != DEMO and not Path(source.location).expanduser().is_dir()


def _licence_files(directory: Path) -> Iterator[Path]:
    found = {
        path
        for pattern in _PATTERNS
        for path in (*directory.glob(pattern), *directory.glob(f"*/{pattern}"))
        if path.is_file() and path.stat().st_size <= _LARGEST_BYTES
    }
    yield from sorted(path for path in found if path.suffix not in {".safetensors", ".json"})


def _with_licences(source: PipelineSource, directory: Path) -> Path:
    """Pipelines are fetched from the hub without the files that no component reads."""
    if not is_hub_id(source):
        return directory
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    nested = [f"*/{pattern}" for pattern in _PATTERNS]
    try:
        return Path(
            snapshot_download(
                source.location,
                revision=source.revision,
                allow_patterns=[*_PATTERNS, *nested, _README],
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"Cannot get the licence files of {source.location}, which a checkpoint must carry: "
            "check the network."
        ) from error
