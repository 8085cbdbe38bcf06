"""What is asked to be planned, and what is known before the search: plain data, no torch."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from autoquant.metrics.device import DeviceFingerprint
from autoquant.metrics.fidelity import AUTO, require_can_decide
from autoquant.metrics.metric import DEFAULT_CLIP_MODEL
from autoquant.planner.candidate import Runtime
from autoquant.planner.checkpoints import NamedCheckpoint, require_stored_weights
from autoquant.planner.gguf_files import gguf_scheme
from autoquant.planner.loras import Adapter, require_loras
from autoquant.planner.measurement import Answer
from autoquant.planner.source import (
    PipelineSource,
    find_source,
    local_directory,
    read_model_index,
)
from autoquant.planner.workload import Workload, WorkloadRequest
from autoquant.search_spaces.backends import backend
from autoquant.search_spaces.layer_groups import LayerGroup
from autoquant.search_spaces.levers import AskedLevers
from autoquant.search_spaces.space import SearchSpace


class Request(BaseModel):
    """What a user asks to be planned; ``autoquant()`` documents each field."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    pipeline: Any
    workload: WorkloadRequest = Field(default_factory=WorkloadRequest)
    metric: str = AUTO
    clip_model: str = DEFAULT_CLIP_MODEL
    download: bool = True
    backends: tuple[str, ...] | None = None
    device: str | None = None
    compute_dtype: str | None = None
    revision: str | None = None
    variant: str | None = None
    trust_remote_code: bool = False
    space_file: str | None = None
    levers: AskedLevers = AskedLevers()
    gguf_files: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ()
    loras: tuple[str, ...] = ()


def require_sensible(request: Request) -> None:
    """Find what is wrong with a request without loading anything heavy.

    Raises:
        InputError: The model, the metric or a backend is unknown, or the model is no pipeline.
    """
    require_can_decide(request.metric)
    for word in request.backends or ():
        backend(word.partition(":")[0])
    require_stored_weights(map(gguf_scheme, request.gguf_files))
    require_stored_weights(NamedCheckpoint.parse(it).scheme for it in request.checkpoints)
    require_loras(request.loras)
    if not isinstance(request.pipeline, str):
        return
    source = find_source(request.pipeline, revision=request.revision, variant=request.variant)
    if not request.trust_remote_code:
        read_model_index(local_directory(source, download=False))


class Preparation(BaseModel):
    """A pipeline that is ready to be searched.

    Attributes:
        source: Where the pipeline comes from, as the plan names it.
        class_name: Its diffusers class.
        runtime: What holds for every candidate.
        workload: What each candidate draws.
        space: What may be tried.
        layer_groups: Groups of layers of each component of the space.
        reference: The measurement of the unquantized pipeline.
        device: Where.
        versions: Of the libraries that matter.
        adapters: LoRA adapters that every candidate has.
        notes: What a reader of the plan should know.
    """

    model_config = ConfigDict(frozen=True)

    source: PipelineSource
    class_name: str
    runtime: Runtime
    workload: Workload
    space: SearchSpace
    layer_groups: dict[str, tuple[LayerGroup, ...]] = {}
    reference: Answer
    device: DeviceFingerprint
    versions: dict[str, str]
    adapters: tuple[Adapter, ...] = ()
    notes: tuple[str, ...]
