"""A pipeline's shapes from its directory."""

from __future__ import annotations

from pathlib import Path

from autoquant.errors import UnsupportedPipeline
from autoquant.planner.footprint.checkpoint import read_component
from autoquant.planner.footprint.repository import LocalRepository, Repository
from autoquant.planner.footprint.shapes import ModelShapes
from autoquant.planner.source import ModelIndex, read_model_index


def read_directory(directory: Path, variant: str | None = None) -> ModelShapes:
    """Read the headers and configs of a diffusers pipeline directory.

    Raises:
        InputError: A file is damaged.
        UnsupportedPipeline: It is no pipeline, or has no safetensors.
    """
    return read_pipeline(LocalRepository(directory), read_model_index(directory), variant)


def read_pipeline(repository: Repository, index: ModelIndex, variant: str | None) -> ModelShapes:
    """Read every component that ``index`` names and that holds weights.

    Raises:
        InputError: A file is damaged.
        UnsupportedPipeline: No component holds safetensors.
    """
    components = {
        name: shapes
        for name, (library, class_name) in index.components.items()
        if (shapes := read_component(repository, name, library, class_name, variant)) is not None
    }
    if not components:
        raise UnsupportedPipeline(f"No component of {repository.name} holds safetensors weights.")
    return ModelShapes(index.class_name, components)
