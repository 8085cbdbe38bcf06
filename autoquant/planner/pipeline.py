"""A read-only look at a loaded pipeline: what its call takes, and what it draws by default."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from autoquant.planner.workload import DEFAULT_PROMPTS, CallArgument, Workload, WorkloadRequest

# What current text-to-image models are trained for, where a pipeline does not say.
_USUAL_PIXELS = 1024
_USUAL_STEPS = 28


def workload_for(pipeline: Any, request: WorkloadRequest) -> Workload:
    """Fill ``request`` from the pipeline's own defaults."""
    height, width = _default_size(pipeline)
    return Workload(
        prompts=request.prompts or DEFAULT_PROMPTS,
        seeds=tuple(range(request.seeds)),
        height=request.height or height,
        width=request.width or width,
        steps=request.steps or _default_steps(pipeline),
        guidance_scale=request.guidance_scale,
        batch_size=request.batch_size,
        call_arguments={
            **_text_length(pipeline),
            **_one_frame(pipeline),
            **_exact_size(pipeline, request),
            **request.call_arguments,
        },
    )


def _default_size(pipeline: Any) -> tuple[int, int]:
    """Pixels, height and width: what the call says, or else the pipeline or its denoiser."""
    parameters = _call_parameters(pipeline)
    height, width = (parameters[side].default for side in ("height", "width"))
    if isinstance(height, int) and isinstance(width, int):
        return height, width
    pixels = _default_pixels(pipeline)
    return pixels, pixels


def _default_pixels(pipeline: Any) -> int:
    config = getattr(pipeline, "config", {})
    # A size that is saved with the pipeline is one of pixels; the others are of latents.
    if isinstance(config.get("default_sample_size"), int):
        return int(config["default_sample_size"])
    draws_pixels = not any("vae" in name or "vq" in name for name in pipeline.components)
    scale = 1 if draws_pixels else getattr(pipeline, "vae_scale_factor", None)
    latent_pixels = getattr(pipeline, "default_sample_size", None)
    if latent_pixels is None:
        denoiser = getattr(pipeline, "transformer", None) or getattr(pipeline, "unet", None)
        latent_pixels = getattr(getattr(denoiser, "config", None), "sample_size", None)
    if isinstance(scale, int) and isinstance(latent_pixels, int):
        return scale * latent_pixels
    return _USUAL_PIXELS


def _default_steps(pipeline: Any) -> int:
    default = _call_parameters(pipeline)["num_inference_steps"].default
    return default if isinstance(default, int) else _USUAL_STEPS


def _text_length(pipeline: Any) -> dict[str, CallArgument]:
    """Pipelines pad prompts to ``max_sequence_length``, whatever their tokenizer was made for."""
    parameter = _call_parameters(pipeline).get("max_sequence_length")
    if parameter is None or not isinstance(parameter.default, int):
        return {}
    lengths = [
        component.model_max_length
        for component in pipeline.components.values()
        if isinstance(getattr(component, "model_max_length", None), int)
    ]
    longest = max(lengths, default=parameter.default)
    return {"max_sequence_length": longest} if longest < parameter.default else {}


def _one_frame(pipeline: Any) -> dict[str, CallArgument]:
    """A video pipeline is asked for an image."""
    return {"num_frames": 1} if "num_frames" in _call_parameters(pipeline) else {}


def _exact_size(pipeline: Any, request: WorkloadRequest) -> dict[str, CallArgument]:
    """Some pipelines draw another size than the one asked for, unless told not to.

    They take the nearest size of a list and resize it, or scale to ``max_area`` pixels. Memory and
    time would then be those of that other size.
    """
    if request.height is None and request.width is None:
        return {}
    parameters = _call_parameters(pipeline)
    exact: dict[str, CallArgument] = {}
    if "use_resolution_binning" in parameters:
        exact["use_resolution_binning"] = False
    if "max_area" in parameters:
        height, width = _default_size(pipeline)
        exact["max_area"] = (request.height or height) * (request.width or width)
    return exact


def _call_parameters(pipeline: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(type(pipeline).__call__).parameters
