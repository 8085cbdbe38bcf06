"""The shapes of whatever a user names: a directory, a hub id, one file, a shape list, the demo."""

from __future__ import annotations

from pathlib import Path

from autoquant.errors import InputError
from autoquant.planner.footprint.pipeline_shapes import read_directory
from autoquant.planner.footprint.shape_list import read_shape_list
from autoquant.planner.footprint.shapes import ModelShapes
from autoquant.planner.source import find_source, local_directory


def read_model(model: str, revision: str | None = None, variant: str | None = None) -> ModelShapes:
    """Read the headers and configs of MODEL; no weight is read.

    Raises:
        InputError: There is no such model, it cannot be reached, or its files are damaged.
        UnsupportedPipeline: It is no pipeline, or holds pickles only.
    """
    path = Path(model).expanduser()
    if path.is_file():
        return _read_file(path)
    source = find_source(model, revision=revision, variant=variant)
    return read_directory(local_directory(source), variant)


def _read_file(path: Path) -> ModelShapes:
    if path.suffix == ".json":
        return read_shape_list(path)
    raise InputError(f"{path} is neither .safetensors, .gguf nor a shape list (.json).")
