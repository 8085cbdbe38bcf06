"""Everything before the search: open the pipeline, open its space, measure the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from autoquant import demo
from autoquant.errors import InputError
from autoquant.metrics.device import (
    compute_capability,
    fingerprint,
    package_versions,
    release_memory,
    resolve_device,
)
from autoquant.metrics.fidelity import AUTO, available_metrics, deciding_metric, require_can_decide
from autoquant.metrics.host_memory import HostMemory, resident_bytes
from autoquant.planner.adapted_space import for_adapters, with_adapters
from autoquant.planner.adapters import adapters_from_files, without_memory
from autoquant.planner.building import build_pipeline
from autoquant.planner.candidate import Runtime
from autoquant.planner.checkpoints import require_stored_weights, with_checkpoints
from autoquant.planner.device_evaluator import DeviceEvaluator
from autoquant.planner.drawing import require_call_takes
from autoquant.planner.gguf_files import with_gguf_files
from autoquant.planner.loading import ComponentLoader, ObjectLoader, loader_for
from autoquant.planner.memory_faults import is_out_of_memory
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
from autoquant.search_spaces.layer_groups import layer_groups
from autoquant.search_spaces.levers import AskedLevers, LeverSpace
from autoquant.search_spaces.own_space import open_space_file
from autoquant.search_spaces.space import open_space, with_levers
from autoquant.search_spaces.space_file import SpaceFile, read_space_file
from autoquant.search_spaces.usable import usable_schemes

_Measurer = TypeVar("_Measurer")

# Ampere; torch.cuda.is_bf16_supported() draws the same line where it is not to count imitations.
_BFLOAT16_SINCE = (8, 0)


def prepare(request: Request, image_root: Path) -> tuple[Preparation, DeviceEvaluator]:
    """Open the pipeline and its space, and measure the unquantized reference.

    The images of each candidate are written below ``image_root``.

    Raises:
        InputError: Something that was asked for is wrong or cannot be had.
    """
    device = resolve_device(request.device)
    require_can_decide(request.metric)
    own_space = None if request.space_file is None else read_space_file(Path(request.space_file))
    asked_levers = _asked_levers(request, own_space)
    assert asked_levers.compute_dtype is not None
    compute_dtype = asked_levers.compute_dtype[0]
    able: dict[str, Any] = {
        "capability": compute_capability(device),
        "compute_dtype": compute_dtype,
    }
    usable_schemes(device.type, request.backends, **able)
    if own_space is not None:
        require_stored_weights(own_space.contents.schemes)
    source, loader = _open(request)
    class_name = loader.pipeline_class.__name__
    # What is asked is checked and the space opened before a weight is loaded.
    outlines = {name: loader.outline(name) for name in loader.sizes}
    if own_space is None:
        space = open_space(class_name, outlines, device.type, request.backends, **able)
    else:
        space = open_space_file(
            own_space, class_name, outlines, device.type, request.backends, **able
        )
    space = with_gguf_files(space, request.gguf_files, outlines, device.type)
    space = with_checkpoints(space, request.checkpoints, outlines, device.type, **able)
    if request.loras:
        hollow = {name: without_memory(outline) for name, outline in outlines.items()}
        emptied = loader.assemble(hollow, getattr(torch, compute_dtype))
        found = adapters_from_files(emptied, request.loras)
        loader.adapters = with_adapters(loader.adapters, found)
    space, adapter_notes = for_adapters(space, loader.adapters, outlines, device.type, **able)
    asked = _demo_workload(request.workload) if source.location == DEMO else request.workload
    outlined = loader.assemble(outlines, getattr(torch, compute_dtype))
    workload = workload_for(outlined, asked)
    require_call_takes(loader.pipeline_class, workload)
    image_size = (workload.height, workload.width)
    space = with_levers(
        space,
        outlines,
        device.type,
        image_size,
        workload.batch_size,
        asked_levers,
        able["capability"],
    )
    # Hundreds of MB of weights are fetched only for a metric that was asked for or left to us.
    metrics, missing = available_metrics(
        None,
        image_size=image_size,
        allow_download=request.download and request.metric in {AUTO, "lpips"},
        clip_model=request.clip_model,
    )
    decides = deciding_metric(request.metric, metrics, missing)

    def measure_reference(runtime: Runtime) -> DeviceEvaluator:
        unchanged = unquantized(space, runtime)
        host = HostMemory(resident_bytes())
        with host:
            built = build_pipeline(loader, unchanged, device)
        return DeviceEvaluator(
            loader, built, unchanged, workload, device, metrics, decides, image_root, host
        )

    evaluator, runtime, offload_notes = first_that_fits(
        reference_runtimes(space.levers), measure_reference, device
    )
    home = str(Path.home())
    notes = [f"{name} was not measured: {why.replace(home, '~')}" for name, why in missing.items()]
    preparation = Preparation(
        source=source,
        class_name=class_name,
        runtime=runtime,
        workload=workload,
        space=space,
        # What a user's file says is all that is tried.
        layer_groups={}
        if own_space
        else {
            name: layer_groups(outlines[name], evaluator.calls[name], component.schemes)
            for name, component in space.components.items()
        },
        reference=evaluator.reference,
        device=fingerprint(device),
        versions=package_versions(),
        adapters=tuple(it for own in loader.adapters.values() for it in own),
        notes=(
            *notes,
            *_size_notes(image_size, evaluator.drawn_size),
            *adapter_notes,
            *offload_notes,
            *_device_notes(device, compute_dtype),
        ),
    )
    return preparation, evaluator


def reference_runtimes(levers: LeverSpace) -> tuple[Runtime, ...]:
    """The runtimes in which the reference may be measured, the one with the most memory first."""
    first = {lever: getattr(levers, lever)[0] for lever in type(levers).model_fields}
    return tuple(Runtime(**{**first, "offload": offload}) for offload in levers.offload)


def first_that_fits(
    runtimes: Sequence[Runtime],
    measure_reference: Callable[[Runtime], _Measurer],
    device: torch.device,
) -> tuple[_Measurer, Runtime, tuple[str, ...]]:
    """Measure the reference in the first runtime in which it does not run out of memory.

    Returns:
        What ``measure_reference`` gave, the runtime, and what a reader of the plan should know.

    Raises:
        InputError: It runs out of memory in every one.
    """
    for runtime in runtimes:
        try:
            evaluator = measure_reference(runtime)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            evaluator = None
        if evaluator is None:
            # Not above: as long as the error is there, its frames hold what was loaded.
            release_memory(device)
            continue
        if runtime == runtimes[0]:
            return evaluator, runtime, ()
        note = (
            "The unquantized pipeline runs out of memory as it is: it was measured with "
            f"{runtime.label}, and the latency it is compared by is that one's."
        )
        return evaluator, runtime, (note,)
    tried = ", ".join(runtime.label or "no offload" for runtime in runtimes)
    raise InputError(
        f"The unquantized pipeline runs out of memory on {device} with {tried}, so there is "
        "nothing to compare with; draw smaller images (--height, --width), or use a larger card."
    )


def _asked_levers(request: Request, own_space: SpaceFile | None) -> AskedLevers:
    """What the request asks of the levers, then what the file does; a dtype in any case."""
    asked = request.levers
    if request.compute_dtype is not None:
        only = (_compute_dtype(request.pipeline, request.compute_dtype),)
        asked = asked.model_copy(update={"compute_dtype": only})
    if own_space is not None:
        asked = asked.over(own_space.contents.runtime)
    return asked.over(AskedLevers(compute_dtype=(_compute_dtype(request.pipeline, None),)))


def _size_notes(asked: tuple[int, int], drawn: tuple[int, int]) -> tuple[str, ...]:
    if asked == drawn:
        return ()
    return (
        f"The pipeline draws {drawn[0]} x {drawn[1]} pixels (height x width) where {asked[0]} x "
        f"{asked[1]} were asked for: memory and latency are those of the size that it draws.",
    )


def _device_notes(device: torch.device, compute_dtype: str) -> tuple[str, ...]:
    capability = compute_capability(device)
    if compute_dtype == "bfloat16" and capability is not None and capability < _BFLOAT16_SINCE:
        return (
            f"This card (compute capability {capability[0]}.{capability[1]}) has no units for "
            "bfloat16 and imitates it: --dtype float16 may be several times faster, where the "
            "model bears it.",
        )
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
