"""Everything before the search: open the pipeline, open its space, measure the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from autoquant import demo
from autoquant.errors import InputError
from autoquant.metrics.device import (
    compute_capability,
    fingerprint,
    package_versions,
    resolve_device,
)
from autoquant.metrics.fidelity import AUTO, available_metrics, deciding_metric, require_can_decide
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.device_evaluator import DeviceEvaluator, build_pipeline
from autoquant.planner.drawing import require_call_takes
from autoquant.planner.loading import ComponentLoader, ObjectLoader, loader_for
from autoquant.planner.parameters import unquantized
from autoquant.planner.pipeline import workload_for
from autoquant.planner.request import Preparation, Request
from autoquant.planner.source import (
    DEMO,
    IN_MEMORY,
    PipelineSource,
    at_commit,
    find_source,
    local_directory,
)
from autoquant.planner.workload import WorkloadRequest
from autoquant.search_spaces.own_space import open_space_file
from autoquant.search_spaces.space import SearchSpace, open_space
from autoquant.search_spaces.space_file import read_space_file
from autoquant.search_spaces.usable import usable_schemes


def prepare(request: Request, image_root: Path) -> tuple[Preparation, DeviceEvaluator]:
    """Open the pipeline and its space, and measure the unquantized reference.

    The images of each candidate are written below ``image_root``.

    Raises:
        InputError: Something that was asked for is wrong or cannot be had.
    """
    device = resolve_device(request.device)
    require_can_decide(request.metric)
    runtime = Runtime(compute_dtype=_compute_dtype(request.pipeline, request.compute_dtype))
    able: dict[str, Any] = {
        "capability": compute_capability(device),
        "compute_dtype": runtime.compute_dtype,
    }
    usable_schemes(device.type, request.backends, **able)
    source, loader = _open(request)
    class_name = loader.pipeline_class.__name__
    own_space = _own_space(request, loader, device.type, able)
    built = build_pipeline(loader, Candidate(components={}, runtime=runtime), device)
    asked = _demo_workload(request.workload) if source.location == DEMO else request.workload
    workload = workload_for(built.pipeline, asked)
    require_call_takes(loader.pipeline_class, workload)
    # Hundreds of MB of weights are fetched only for a metric that was asked for or left to us.
    metrics, missing = available_metrics(
        None,
        image_size=(workload.height, workload.width),
        allow_download=request.download and request.metric in {AUTO, "lpips"},
        clip_model=request.clip_model,
    )
    decides = deciding_metric(request.metric, metrics, missing)
    space = own_space or open_space(
        class_name, built.modules, device.type, request.backends, **able
    )
    unchanged = unquantized(space, runtime)
    evaluator = DeviceEvaluator(
        loader, built, unchanged, workload, device, metrics, decides, image_root
    )
    home = str(Path.home())
    notes = [f"{name} was not measured: {why.replace(home, '~')}" for name, why in missing.items()]
    preparation = Preparation(
        source=source,
        class_name=class_name,
        runtime=runtime,
        workload=workload,
        space=space,
        reference=evaluator.reference,
        device=fingerprint(device),
        versions=package_versions(),
        notes=(*notes, *_device_notes(device)),
    )
    return preparation, evaluator


def _own_space(
    request: Request, loader: ComponentLoader, device_type: str, able: dict[str, Any]
) -> SearchSpace | None:
    """The space of a user's file, checked against the pipeline before a weight is loaded."""
    if request.space_file is None:
        return None
    return open_space_file(
        read_space_file(Path(request.space_file)),
        loader.pipeline_class.__name__,
        {name: loader.outline(name) for name in loader.sizes},
        device_type,
        request.backends,
        **able,
    )


def _device_notes(device: torch.device) -> tuple[str, ...]:
    if device.type != "cpu":
        return ()
    return (
        "Measured on a CPU: latencies here say nothing about a GPU, and peaks are tensor bytes "
        "without an allocator's reserve.",
    )


def _open(request: Request) -> tuple[PipelineSource, ComponentLoader]:
    pipeline = request.pipeline
    if isinstance(pipeline, str | Path):
        source = find_source(str(pipeline), revision=request.revision, variant=request.variant)
        directory = local_directory(source)
        loader = loader_for(directory, trust_remote_code=request.trust_remote_code)
        return at_commit(source, directory), loader
    if not hasattr(pipeline, "components"):
        raise InputError(
            f"Pass a diffusers pipeline, a directory or a hub id, got {type(pipeline).__name__}."
        )
    return _source_of_object(pipeline), ObjectLoader(pipeline)


def _source_of_object(pipeline: Any) -> PipelineSource:
    origin = getattr(pipeline, "name_or_path", None) or ""
    try:
        return find_source(str(origin))
    except InputError:
        return PipelineSource(location=IN_MEMORY)


def _demo_workload(request: WorkloadRequest) -> WorkloadRequest:
    known = demo.WORKLOAD
    return WorkloadRequest(
        prompts=request.prompts or tuple(known["prompts"]),
        seeds=request.seeds,
        height=request.height or known["height"],
        width=request.width or known["width"],
        steps=request.steps or known["steps"],
        guidance_scale=request.guidance_scale,
        batch_size=request.batch_size,
        call_arguments={
            "max_sequence_length": known["max_sequence_length"],
            **request.call_arguments,
        },
    )


def _compute_dtype(pipeline: Any, requested: str | None) -> Any:
    if requested is None:
        own = str(getattr(pipeline, "dtype", "")).removeprefix("torch.")
        return own if own in {"bfloat16", "float16"} else "bfloat16"
    if requested not in {"bfloat16", "float16", "float32"}:
        raise InputError(
            f"compute_dtype must be 'bfloat16', 'float16' or 'float32', got {requested!r}."
        )
    return requested
