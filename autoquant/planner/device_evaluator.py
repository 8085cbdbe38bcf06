"""Measure candidates for real: load, quantize, run, compare with the reference images."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from autoquant.errors import AutoquantError, CandidateFailed, UnsupportedPipeline, first_line
from autoquant.metrics.device import on_device, release_memory
from autoquant.metrics.fidelity import Metric, loss_of
from autoquant.metrics.host_memory import HostMemory, give_back_host_memory
from autoquant.metrics.images import save_png
from autoquant.metrics.latency import summarize
from autoquant.metrics.memory import counter_for
from autoquant.planner.building import BuiltPipeline, build_pipeline
from autoquant.planner.candidate import Candidate
from autoquant.planner.kept_components import KeptComponents
from autoquant.planner.levers import attention_restored
from autoquant.planner.loading import ComponentLoader
from autoquant.planner.measurement import GIB, Answer, Comparison, ComponentFacts, Measured
from autoquant.planner.memory_faults import (
    is_out_of_host_memory,
    is_out_of_memory,
    out_of_memory,
)
from autoquant.planner.phases import announce
from autoquant.planner.prompt_embeddings import PromptEmbeddings
from autoquant.planner.racer import Racer
from autoquant.planner.racing import Race, Run
from autoquant.planner.references import Reference, make_reference
from autoquant.planner.timed_workload import (
    Drawn,
    WarmUp,
    compile_seconds,
    draw_as_it_runs,
    draw_workload,
    warm_up,
)
from autoquant.planner.workload import Workload
from autoquant.search_spaces.layer_groups import Calls, watch_calls
from autoquant.search_spaces.levers import denoisers
from autoquant.search_spaces.linears import linears
from autoquant.search_spaces.quantize import QuantizedLayers

# Backends report a missing kernel or a shape they cannot take as any of these, and attention
# processors a fused projection; the reason goes into the study, where the table shows it.
_FAULTS = (RuntimeError, ValueError, TypeError, AssertionError, ImportError, AttributeError)


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
        self._kept = KeptComponents()
        self._embeddings = PromptEmbeddings()
        with on_device(device):
            with host, _faults_as_refusals(reference.pipeline):
                warm = warm_up(reference, workload, device)
            drawn = draw_workload(reference, warm, workload, device)
        self.calls: Mapping[str, Calls]
        with on_device(device), watch_calls(reference.modules) as self.calls:
            made = make_reference(reference.pipeline, workload, metrics, drawn.images)
        self._references = {workload.key: made}
        self.reference = self._answer(unquantized, reference, drawn, host)

    def answer(self, candidate: Candidate, race: Race | None = None) -> Answer:
        """Measure one candidate; the unquantized one was measured as the reference.

        It is stopped once it has lost ``race``; without one, every image is drawn.

        Raises:
            CandidateFailed: It cannot be quantized as asked, or draws a degenerate image.
        """
        if candidate == self._unquantized:
            return self.reference
        host, workload = HostMemory(self._idle_bytes), self._workload
        with self._measuring():
            with host:
                built = self._build(candidate, host)
                warm = warm_up(built, workload, self._device)
            racer = None if race is None else self._racer(race, built, warm)
            stops = (racer.stops,) if racer else ()
            drawn = draw_workload(built, warm, workload, self._device, *stops)
        return self._answer(candidate, built, drawn, host, racer)

    def compare(
        self, candidate: Candidate, workload: Workload, *, timed: bool = True
    ) -> Comparison:
        """Compare a candidate's images of ``workload`` with the reference.

        It is drawn as it will run, compiled where the candidate says so; no memory is counted.
        Where it is not ``timed``, text that the same encoders have encoded is not encoded again.

        Raises:
            CandidateFailed: It cannot be quantized as asked, or draws a degenerate image.
        """
        reference = self._reference(workload)
        with self._measuring():
            built = self._build_uncounted(candidate)
            if not timed:
                self._embeddings.lend_to(built.pipeline, _all_but_denoisers(candidate, built))
            images, seconds, compile_s = draw_as_it_runs(built, workload, self._device)
        announce("score")
        reference.check(images)
        scores = reference.score(self._metrics, images)
        floor = reference.noise_floor(self._deciding_metric)
        return Comparison(
            component_gb={name: n / GIB for name, n in built.component_bytes.items()},
            loss=loss_of(self._deciding_metric, scores[self._deciding_metric], floor),
            fidelity=scores,
            metric=self._deciding_metric,
            noise_floor=floor,
            seconds=seconds if timed else (),
            compile_s=compile_s,
        )

    @property
    def drawn_size(self) -> tuple[int, int]:
        """Pixels of the reference's images, height and width."""
        height, width = self._references[self._workload.key].images.shape[1:3]
        return height, width

    @property
    def kept_bytes(self) -> int:
        """Bytes of what stays on the device for the next candidate."""
        return self._kept.held_bytes + self._embeddings.held_bytes

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        try:
            with on_device(self._device), attention_restored(), _faults_as_failures(self._device):
                yield
        except BaseException:
            self._kept.drop()
            self._embeddings.drop()
            raise

    def _build(self, candidate: Candidate, host: HostMemory) -> BuiltPipeline:
        self._embeddings.drop()
        first = self._kept.beginning(self._loader.sizes, candidate)
        self._clear()
        built = build_pipeline(self._loader, candidate, self._device, first, host)
        self._kept.keep(built, are_counted=True)
        return built

    def _build_uncounted(self, candidate: Candidate) -> BuiltPipeline:
        kept = self._kept.matching(candidate)
        self._clear()
        built = build_pipeline(self._loader, candidate, self._device, kept)
        self._kept.keep(built, are_counted=False)
        return built

    def _clear(self) -> None:
        release_memory(self._device)
        give_back_host_memory()
        torch.compiler.reset()

    def _reference(self, workload: Workload) -> Reference:
        if workload.key not in self._references:
            with on_device(self._device), attention_restored():
                pipeline = self._build_uncounted(self._unquantized).pipeline
                made = make_reference(pipeline, workload, self._metrics)
            self._references[workload.key] = made
        return self._references[workload.key]

    def _racer(self, race: Race, built: BuiltPipeline, warm: WarmUp) -> Racer:
        reference = self._references[self._workload.key]
        known = Run(
            peak_gb=warm.peak_bytes / GIB,
            load_peak_gb=built.load_peak_bytes / GIB,
            noise_floor=reference.noise_floor(self._deciding_metric),
        )

        def run_after(seconds: Sequence[float]) -> Run:
            compile_s = compile_seconds(built, warm.seconds, summarize(seconds))
            return known.model_copy(update={"seconds": tuple(seconds), "compile_s": compile_s})

        return Racer(race, reference, self._metrics[self._deciding_metric], run_after)

    def _answer(
        self,
        candidate: Candidate,
        built: BuiltPipeline,
        drawn: Drawn,
        host: HostMemory,
        racer: Racer | None = None,
    ) -> Answer:
        announce("score")
        reference = self._references[self._workload.key]
        reference.check(drawn.images)
        save_png(drawn.images, self._image_root / candidate.digest)
        components = {
            name: _facts(module, built.quantized.get(name))
            for name, module in built.modules.items()
        }
        known: dict[str, Sequence[float]] = {}
        if racer is not None:
            racer.score(drawn.images)
            known = {self._deciding_metric: racer.values}
        measured = self._measured(built, drawn, reference, known)
        ram = {"ram_gb": host.peak_bytes / GIB}
        return Answer(
            measured=measured.model_copy(update=ram | (racer.outcome if racer else {})),
            components=components,
        )

    def _measured(
        self,
        built: BuiltPipeline,
        drawn: Drawn,
        reference: Reference,
        known: Mapping[str, Sequence[float]],
    ) -> Measured:
        scores = reference.score(self._metrics, drawn.images, known)
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
            quantized_layers={name: len(done.layers) for name, done in built.quantized.items()},
        )


@contextmanager
def _faults_as_refusals(pipeline: Any) -> Iterator[None]:
    try:
        yield
    except AutoquantError:
        raise
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        # Unquantized, so that nothing of ours is in it: it needs what a prompt does not give, an
        # image for one, or another size.
        raise UnsupportedPipeline(
            f"{type(pipeline).__name__} draws nothing from the workload's first prompts as it is: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error


@contextmanager
def _faults_as_failures(device: torch.device) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise out_of_memory(error, device) from error
    except _FAULTS as error:
        if is_out_of_memory(error) or is_out_of_host_memory(error):
            raise out_of_memory(error, device) from error
        raise CandidateFailed(f"{type(error).__name__}: {first_line(error)}") from error


def _all_but_denoisers(candidate: Candidate, built: BuiltPipeline) -> Hashable:
    """What may decide how a prompt is encoded: other components' choices, and the runtime."""
    others = built.modules.keys() - denoisers(built.modules)
    choices = ((name, candidate.components.get(name)) for name in sorted(others))
    return (*choices, candidate.runtime)


def _home(model_class: type[torch.nn.Module]) -> str:
    """The shortest module path that a script can import the class from."""
    library = model_class.__module__.partition(".")[0]
    public = hasattr(sys.modules.get(library), model_class.__name__)
    return library if public else model_class.__module__


def _facts(module: torch.nn.Module, quantized: QuantizedLayers | None) -> ComponentFacts:
    done = set(quantized.layers) if quantized else set()
    return ComponentFacts(
        library=_home(type(module)),
        class_name=type(module).__name__,
        kept_layers=tuple(path for path in linears(module) if path not in done),
        overridden=dict(quantized.overridden) if quantized else {},
    )
