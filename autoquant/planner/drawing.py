"""Draw a workload's images with a pipeline, and time each call."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from autoquant.errors import InputError
from autoquant.planner.workload import Sample, Workload

Images = npt.NDArray[np.float32]


def call_arguments(workload: Workload, batch: Sequence[Sample]) -> dict[str, Any]:
    """Keyword arguments of one pipeline call.

    Every image has its own generator on the CPU, so that the noise is the same on every device
    and in every batch size.
    """
    arguments: dict[str, Any] = {
        "prompt": [sample.prompt for sample in batch],
        "height": workload.height,
        "width": workload.width,
        "num_inference_steps": workload.steps,
        "generator": [torch.Generator("cpu").manual_seed(sample.seed) for sample in batch],
        "output_type": "np",
        **workload.call_arguments,
    }
    if workload.guidance_scale is not None:
        arguments["guidance_scale"] = workload.guidance_scale
    return arguments


def draw(pipeline: Any, workload: Workload, batch: Sequence[Sample]) -> Images:
    """Draw one batch; returns float32 images of shape (N, H, W, 3) in [0, 1].

    A video pipeline draws an image by drawing a single frame.
    """
    drawn = pipeline(**call_arguments(workload, batch))
    images = np.asarray(drawn.frames)[:, 0] if hasattr(drawn, "frames") else _images(drawn)
    return np.asarray(images, dtype=np.float32)


def _images(drawn: Any) -> Any:
    # Kandinsky 5 calls them by the singular.
    return drawn.images if hasattr(drawn, "images") else drawn.image


def require_call_takes(pipeline_class: type[Any], workload: Workload) -> None:
    """Check the workload against the pipeline's own call signature.

    Raises:
        InputError: The call does not take one of the workload's arguments.
    """
    taken = inspect.signature(pipeline_class.__call__).parameters
    given = call_arguments(workload, workload.samples[:1])
    unknown = [name for name in given if name not in taken]
    if unknown:
        raise InputError(
            f"{pipeline_class.__name__} takes no {', '.join(unknown)}; "
            "leave it out of the workload."
        )
