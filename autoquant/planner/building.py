"""Build a candidate: load and quantize each component, then pull the levers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from autoquant.metrics.device import on_device
from autoquant.metrics.host_memory import HostMemory
from autoquant.metrics.memory import PeakReading, counter_for
from autoquant.planner.adapters import adapted_layers
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.levers import pull_levers
from autoquant.planner.loading import ComponentLoader
from autoquant.planner.phases import announce
from autoquant.search_spaces.fuse import without_weights
from autoquant.search_spaces.lora import attach_adapters, require_active
from autoquant.search_spaces.quantize import QuantizedLayers, apply_choice, brings_weights
from autoquant.search_spaces.scheme import Choice
from autoquant.storage import held_bytes


@dataclass(frozen=True)
class BuiltComponent:
    """One component on the device.

    Attributes:
        name: In the pipeline.
        choice: What was done to it.
        compute_dtype: Of what is not quantized.
        module: The component.
        quantized: Its quantized layers, if it was changed.
        held_bytes: Of all its distinct storages.
        load_peak_bytes: Most bytes on the device until it was there, the components that were
            loaded before it among them.
        host_peak_bytes: Most host memory until then.
    """

    name: str
    choice: Choice
    compute_dtype: str
    module: torch.nn.Module
    quantized: QuantizedLayers | None
    held_bytes: int
    load_peak_bytes: int
    host_peak_bytes: int


@dataclass(frozen=True)
class BuiltPipeline:
    """A pipeline on the device, with what was done to it; nothing is compiled yet.

    Attributes:
        pipeline: The diffusers pipeline.
        components: Its torch modules, in the order in which they were loaded.
        runtime: The levers that were pulled, and the one for compiling.
        load_peak_bytes: Most bytes on the device while it was made.
        weight_bytes: Bytes of all distinct storages, before any were offloaded.
    """

    pipeline: Any
    components: tuple[BuiltComponent, ...]
    runtime: Runtime
    load_peak_bytes: int
    weight_bytes: int

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        """The torch modules by component name."""
        return {component.name: component.module for component in self.components}

    @property
    def quantized(self) -> dict[str, QuantizedLayers]:
        """The quantized layers by component name, of those that were changed."""
        return {it.name: it.quantized for it in self.components if it.quantized is not None}

    @property
    def component_bytes(self) -> dict[str, int]:
        """Bytes of each component's distinct storages, before any were offloaded."""
        return {component.name: component.held_bytes for component in self.components}


def build_pipeline(
    loader: ComponentLoader,
    candidate: Candidate,
    device: torch.device,
    kept: Sequence[BuiltComponent] = (),
    host: HostMemory | None = None,
) -> BuiltPipeline:
    """Load every component, largest first, quantizing each before the next is loaded.

    Args:
        loader: Where the components come from.
        candidate: What is done to them.
        device: Where they go.
        kept: Some of them, as they were built before and nothing has changed since. The peaks are
            right if they are the first.
        host: Watches host memory meanwhile.

    Raises:
        QuantizationMismatch: A component is not quantized as its choice says.
    """
    announce("load")
    runtime = candidate.runtime
    dtype = getattr(torch, runtime.compute_dtype)
    known = {component.name: component for component in kept}
    built: list[BuiltComponent] = []
    peak_before = kept[-1].load_peak_bytes if kept else 0
    if host is not None and kept:
        host.reached(kept[-1].host_peak_bytes)
    there = [component.module for component in kept]
    with on_device(device), counter_for(device).watch(*there) as reading:
        for name in loader.sizes:
            if name in known:
                built.append(known[name])
                continue
            choice = candidate.components.get(name, Choice())
            module, quantized = _load(loader, name, choice, dtype, reading)
            # Weights that are offloaded arrive on the device when the pipeline is called.
            module = module.to(device if runtime.offload == "none" else torch.device("cpu"))
            built.append(
                BuiltComponent(
                    name=name,
                    choice=choice,
                    compute_dtype=runtime.compute_dtype,
                    module=module,
                    quantized=quantized,
                    held_bytes=held_bytes(module),
                    load_peak_bytes=max(peak_before, reading.so_far_bytes()),
                    host_peak_bytes=0 if host is None else host.peak_bytes,
                )
            )
        modules = {component.name: component.module for component in built}
        pipeline = loader.assemble(modules, dtype)
        # Sequential offload leaves empty modules behind.
        weight_bytes = held_bytes(*modules.values())
        pull_levers(pipeline, runtime, device)
    return BuiltPipeline(
        pipeline=pipeline,
        components=tuple(built),
        runtime=runtime,
        load_peak_bytes=max(peak_before, reading.peak_bytes),
        weight_bytes=weight_bytes,
    )


def _load(
    loader: ComponentLoader, name: str, choice: Choice, dtype: torch.dtype, reading: PeakReading
) -> tuple[torch.nn.Module, QuantizedLayers | None]:
    brings = brings_weights(choice)
    if brings:
        module = without_weights(loader.outline(name)).to(dtype)
    else:
        module = loader.load(name, dtype)
        reading.hold(module)
    quantized = apply_choice(module, choice, dtype) if choice != Choice() else None
    adapters = loader.adapters.get(name, ())
    if adapters:
        attach_adapters(module, [adapter.argument for adapter in adapters], dtype)
        names = [adapter.name for adapter in adapters]
        require_active(module, names, adapted_layers(adapters), name)
    if brings:
        reading.hold(module)
    return module, quantized
