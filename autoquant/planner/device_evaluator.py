"""Measure candidates for real: load, quantize, run, compare with the reference images."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoquant.errors import CandidateFailed, first_line
from autoquant.metrics.device import memory_limit, release_memory
from autoquant.metrics.fidelity import Metric, loss_of
from autoquant.metrics.host_memory import HostMemory, give_back_host_memory
from autoquant.metrics.images import check_images, save_png
from autoquant.metrics.latency import LatencySummary, summarize, timed
from autoquant.metrics.memory import counter_for
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.drawing import Images, draw
from autoquant.planner.levers import attention_restored, compile_denoisers, pull_levers
from autoquant.planner.loading import ComponentLoader
from autoquant.planner.measurement import GIB, Answer, Comparison, ComponentFacts, Measured
from autoquant.planner.memory_faults import is_out_of_host_memory, out_of_memory
from autoquant.planner.phases import announce, limit_gb
from autoquant.planner.references import Reference, make_reference
from autoquant.planner.workload import Sample, Workload
from autoquant.search_spaces.fuse import without_weights
from autoquant.search_spaces.layer_groups import Calls, watch_calls
from autoquant.search_spaces.quantize import apply_choice, brings_weights
from autoquant.search_spaces.scheme import Choice
from autoquant.storage import held_bytes

# A median of fewer calls has no quartiles to speak of.
_LEAST_TIMED_CALLS = 3


@dataclass(frozen=True)
class BuiltPipeline:
    """A pipeline on the device, with what was done to it; nothing is compiled yet.

    Attributes:
        pipeline: The diffusers pipeline.
        modules: Its torch modules by component name.
        runtime: The levers that were pulled, and the one for compiling.
        quantized_layers: Paths of the quantized layers by component name.
        load_peak_bytes: Most bytes on the device while it was made.
        weight_bytes: Bytes of all distinct storages, before any were offloaded.
        component_bytes: The same for each component.
    """

    pipeline: Any
    modules: Mapping[str, torch.nn.Module]
    runtime: Runtime
    quantized_layers: Mapping[str, tuple[str, ...]]
    load_peak_bytes: int
    weight_bytes: int
    component_bytes: Mapping[str, int]


@dataclass(frozen=True)
class Drawn:
    """A workload's images, and what drawing them cost."""

    images: Images
    peak_bytes: int
    other_counters: Mapping[str, int]
    latency_s: LatencySummary
    compile_s: float


def build_pipeline(
    loader: ComponentLoader, candidate: Candidate, device: torch.device
) -> BuiltPipeline:
    """Load every component, largest first, quantizing each before the next is loaded.

    Raises:
        QuantizationMismatch: A component is not quantized as its choice says.
    """
    announce("load")
    runtime = candidate.runtime
    dtype = getattr(torch, runtime.compute_dtype)
    # Weights that are offloaded arrive on the device when the pipeline is called.
    home = device if runtime.offload == "none" else torch.device("cpu")
    modules: dict[str, torch.nn.Module] = {}
    quantized: dict[str, tuple[str, ...]] = {}
    with counter_for(device).watch() as reading:
        for name in loader.sizes:
            choice = candidate.components.get(name, Choice())
            if brings_weights(choice):
                module = without_weights(loader.outline(name)).to(dtype)
            else:
                module = loader.load(name, dtype)
                reading.hold(module)
            if choice != Choice():
                quantized[name] = apply_choice(module, choice, dtype).layers
            if brings_weights(choice):
                reading.hold(module)
            modules[name] = module.to(home)
        pipeline = loader.assemble(modules, dtype)
        # Sequential offload leaves empty modules behind.
        weight_bytes = held_bytes(*modules.values())
        component_bytes = {name: held_bytes(module) for name, module in modules.items()}
        pull_levers(pipeline, runtime, device)
    return BuiltPipeline(
        pipeline=pipeline,
        modules=modules,
        runtime=runtime,
        quantized_layers=quantized,
        load_peak_bytes=reading.peak_bytes,
        weight_bytes=weight_bytes,
        component_bytes=component_bytes,
    )


def draw_workload(built: BuiltPipeline, workload: Workload, device: torch.device) -> Drawn:
    """Draw every sample once under the clock, after one call that warms up and counts memory."""
    announce("warm up")
    batches = list(workload.batches())
    counter = counter_for(device)
    compiles = built.runtime.compile != "none"
    if compiles and counter.sees_compiled_code:
        compile_denoisers(built.pipeline, built.runtime.compile)
    with timed(device) as first_call, counter.watch(*built.modules.values()) as reading:
        draw(built.pipeline, workload, batches[0])
    if compiles and not counter.sees_compiled_code:
        compile_denoisers(built.pipeline, built.runtime.compile)
        with timed(device) as first_call:
            draw(built.pipeline, workload, batches[0])
    announce("draw")
    repeats = [batches[0]] * max(0, _LEAST_TIMED_CALLS - len(batches))
    with memory_limit(device, _limit_bytes(reading.peak_bytes)):
        images, seconds = _draw_timed(built, workload, [*batches, *repeats], device)
    latency_s = summarize(seconds)
    return Drawn(
        images=np.concatenate(images[: len(batches)]),
        peak_bytes=reading.peak_bytes,
        other_counters=dict(reading.additional_bytes),
        latency_s=latency_s,
        compile_s=max(0.0, first_call.seconds - latency_s.median) if compiles else 0.0,
    )


def _draw_timed(
    built: BuiltPipeline,
    workload: Workload,
    batches: Iterable[Sequence[Sample]],
    device: torch.device,
) -> tuple[list[Images], list[float]]:
    """The images of each batch, and the seconds of each call."""
    images: list[Images] = []
    seconds: list[float] = []
    for batch in batches:
        with timed(device) as clock:
            images.append(draw(built.pipeline, workload, batch))
        seconds.append(clock.seconds)
    return images, seconds


def _limit_bytes(peak_bytes: int) -> int | None:
    """The budget, where the candidate keeps it: its images are then drawn within it."""
    limit = limit_gb()
    return None if limit is None or peak_bytes > limit * GIB else int(limit * GIB)


class DeviceEvaluator:
    """Measures candidates of one pipeline, on one device, for one workload.

    The reference pipeline is used while the evaluator is made and not kept; it is built again for
    each further workload that something is compared on.

    Attributes:
        reference: The measurement of the unquantized pipeline.
        calls: Which linear layers of each component ran, and when.

    Args:
        host: Watched the reference while it was loaded.
    """

    def __init__(
        self,
        loader: ComponentLoader,
        reference: BuiltPipeline,
        unquantized: Candidate,
        workload: Workload,
        device: torch.device,
        metrics: Mapping[str, Metric],
        deciding_metric: str,
        image_root: Path,
        host: HostMemory,
    ) -> None:
        self._loader = loader
        self._workload = workload
        self._device = device
        self._metrics = metrics
        self._deciding_metric = deciding_metric
        self._image_root = image_root
        self._unquantized = unquantized
        self._idle_bytes = host.idle_bytes
        with host:
            drawn = draw_workload(reference, workload, device)
        self.calls: Mapping[str, Calls]
        with watch_calls(reference.modules) as self.calls:
            made = make_reference(reference.pipeline, workload, metrics, drawn.images)
        self._references = {workload.key: made}
        self.reference = self._answer(unquantized, reference, drawn, host)

    def answer(self, candidate: Candidate) -> Answer:
        """Measure one candidate; the unquantized one was measured as the reference.

        Raises:
            CandidateFailed: It cannot be quantized as asked, or draws a degenerate image.
        """
        if candidate == self._unquantized:
            return self.reference
        host = HostMemory(self._idle_bytes)
        with host, attention_restored(), _faults_as_failures(self._device):
            built = self._build(candidate)
            drawn = draw_workload(built, self._workload, self._device)
        return self._answer(candidate, built, drawn, host)

    def compare(self, candidate: Candidate, workload: Workload) -> Comparison:
        """Compare a candidate's images of ``workload`` with the reference.

        Nothing is compiled, and no memory is counted.

        Raises:
            CandidateFailed: It cannot be quantized as asked, or draws a degenerate image.
        """
        reference = self._reference(workload)
        with attention_restored(), _faults_as_failures(self._device):
            built = self._build(candidate)
            announce("draw")
            # The first call warms up.
            drawn, seconds = _draw_timed(built, workload, workload.batches(), self._device)
        images = np.concatenate(drawn)
        announce("score")
        check_images(images, reference.prompts, reference.images)
        scores = reference.score(self._metrics, images)
        floor = reference.noise_floor(self._deciding_metric)
        return Comparison(
            component_gb={name: n / GIB for name, n in built.component_bytes.items()},
            loss=loss_of(self._deciding_metric, scores[self._deciding_metric], floor),
            fidelity=scores,
            metric=self._deciding_metric,
            noise_floor=floor,
            seconds=tuple(seconds[1:]),
        )

    def _build(self, candidate: Candidate) -> BuiltPipeline:
        release_memory(self._device)
        give_back_host_memory()
        torch.compiler.reset()
        return build_pipeline(self._loader, candidate, self._device)

    def _reference(self, workload: Workload) -> Reference:
        if workload.key not in self._references:
            with attention_restored():
                pipeline = self._build(self._unquantized).pipeline
                made = make_reference(pipeline, workload, self._metrics)
            self._references[workload.key] = made
        return self._references[workload.key]

    def _answer(
        self, candidate: Candidate, built: BuiltPipeline, drawn: Drawn, host: HostMemory
    ) -> Answer:
        announce("score")
        reference = self._references[self._workload.key]
        check_images(drawn.images, reference.prompts, reference.images)
        save_png(drawn.images, self._image_root / candidate.digest)
        components = {
            name: _facts(module, built.quantized_layers.get(name, ()))
            for name, module in built.modules.items()
        }
        measured = self._measured(built, drawn, reference)
        return Answer(
            measured=measured.model_copy(update={"ram_gb": host.peak_bytes / GIB}),
            components=components,
        )

    def _measured(self, built: BuiltPipeline, drawn: Drawn, reference: Reference) -> Measured:
        scores = reference.score(self._metrics, drawn.images)
        floor = reference.noise_floor(self._deciding_metric)
        return Measured(
            weights_gb=built.weight_bytes / GIB,
            component_gb={name: n / GIB for name, n in built.component_bytes.items()},
            load_peak_gb=built.load_peak_bytes / GIB,
            peak_gb=drawn.peak_bytes / GIB,
            counter=counter_for(self._device).name,
            other_counters_gb={name: n / GIB for name, n in drawn.other_counters.items()},
            latency_s=drawn.latency_s,
            compile_s=drawn.compile_s,
            loss=loss_of(self._deciding_metric, scores[self._deciding_metric], floor),
            fidelity=scores,
            metric=self._deciding_metric,
            metric_identity=self._metrics[self._deciding_metric].identity,
            noise_floor=floor,
            quantized_layers={name: len(paths) for name, paths in built.quantized_layers.items()},
        )


@contextmanager
def _faults_as_failures(device: torch.device) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise out_of_memory(error, device) from error
    except (RuntimeError, ValueError, TypeError, AssertionError, ImportError) as error:
        # Backends report a missing kernel or a shape they cannot take as any of these; the
        # reason goes into the study, where the table shows it.
        if is_out_of_host_memory(error):
            raise out_of_memory(error, device) from error
        raise CandidateFailed(f"{type(error).__name__}: {first_line(error)}") from error


def _home(model_class: type[torch.nn.Module]) -> str:
    """The shortest module path that a script can import the class from."""
    library = model_class.__module__.partition(".")[0]
    public = hasattr(sys.modules.get(library), model_class.__name__)
    return library if public else model_class.__module__


def _facts(module: torch.nn.Module, quantized_layers: tuple[str, ...]) -> ComponentFacts:
    return ComponentFacts(
        library=_home(type(module)),
        class_name=type(module).__name__,
        kept_layers=tuple(
            path
            for path, layer in module.named_modules()
            if isinstance(layer, torch.nn.Linear) and path not in quantized_layers
        ),
    )
