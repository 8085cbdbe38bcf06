"""The shapes of whatever a user names: a directory, a hub id, one file, a shape list, the demo."""

from __future__ import annotations

from pathlib import Path

from autoquant.errors import InputError, UnsupportedPipeline
from autoquant.planner.footprint.pipeline_shapes import read_directory
from autoquant.planner.footprint.shape_list import read_shape_list
from autoquant.planner.footprint.shapes import ModelShapes
from autoquant.planner.footprint.single_file import read_single_file
from autoquant.planner.source import DEMO, find_source, local_directory


def read_model(
    model: str, revision: str | None = None, variant: str | None = None, base: str | None = None
) -> ModelShapes:
    """Read the headers and configs of MODEL; no weight is read.

    Args:
        model: ``demo``, a directory, a hub id, a checkpoint in one file, or a shape list.
        revision: Hub revision.
        variant: Weight variant, like ``fp16``.
        base: For a checkpoint in one file, the pipeline that the other components come from.

    Raises:
        InputError: There is no such model, it cannot be reached, or its files are damaged.
        UnsupportedPipeline: It is no pipeline, or holds pickles only.
    """
    path = Path(model).expanduser()
    if path.is_file():
        return _read_file(path, base)
    if base is not None:
        raise InputError(f"--base is for a checkpoint in one file, and {model} is none.")
    source = find_source(model, revision=revision, variant=variant)
    if source.location == DEMO or Path(source.location).expanduser().is_dir():
        return read_directory(local_directory(source), variant)
    from autoquant.planner.footprint.hub import read_hub

    return read_hub(source)


def _read_file(path: Path, base: str | None) -> ModelShapes:
    if path.suffix == ".json":
        return read_shape_list(path)
    if path.suffix in {".safetensors", ".gguf"}:
        return read_single_file(path, None if base is None else read_model(base))
    raise UnsupportedPipeline(
        f"{path} is neither .safetensors nor .gguf nor a shape list (.json); other checkpoints are "
        "pickles, which can run code when they are opened. Convert it to safetensors."
    )
