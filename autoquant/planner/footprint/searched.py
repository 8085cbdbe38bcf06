"""The bound for a pipeline that is about to be searched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autoquant.errors import AutoquantError
from autoquant.planner.footprint.adapter_shapes import with_adapter_files
from autoquant.planner.footprint.bound import PeakBound
from autoquant.planner.footprint.pipeline_shapes import read_directory
from autoquant.planner.footprint.shapes import ModelShapes
from autoquant.planner.request import Preparation
from autoquant.planner.source import local_directory
from autoquant.search_spaces.lora import WEIGHTS


def bound_for(pipeline: Any, prepared: Preparation) -> tuple[PeakBound | None, Preparation]:
    """The least peak of each candidate; ``None``, and a note why, where it cannot be told.

    Args:
        pipeline: What the user named, or the pipeline in memory.
        prepared: The same, ready to be searched: a hub id has been downloaded.
    """
    try:
        shapes = _shapes(pipeline, prepared)
    except AutoquantError as error:
        note = f"No candidate was ruled out by its predicted memory: {error}"
        return None, prepared.model_copy(update={"notes": (*prepared.notes, note)})
    return PeakBound(shapes, prepared.workload), prepared


def _shapes(pipeline: Any, prepared: Preparation) -> ModelShapes:
    if isinstance(pipeline, str):
        directory = local_directory(prepared.source, download=False)
        weights = [Path(adapter.folder) / WEIGHTS for adapter in prepared.adapters]
        return with_adapter_files(read_directory(directory, prepared.source.variant), weights)
    from autoquant.planner.footprint.module_shapes import shapes_of_pipeline

    return shapes_of_pipeline(pipeline)
