"""Build a candidate: load and quantize each component, then pull the levers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from autoquant.metrics.device import on_device
from autoquant.metrics.memory import counter_for
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.levers import pull_levers
from autoquant.planner.loading import ComponentLoader
from autoquant.planner.phases import announce
from autoquant.search_spaces.fuse import without_weights
from autoquant.search_spaces.quantize import QuantizedLayers, apply_choice, brings_weights
from autoquant.search_spaces.scheme import Choice
from autoquant.storage import held_bytes


@dataclass(frozen=True)
class BuiltPipeline:
    """A pipeline on the device, with what was done to it; nothing is compiled yet.

    Attributes:
        pipeline: The diffusers pipeline.
        modules: Its torch modules by component name.
        runtime: The levers that were pulled, and the one for compiling.
        quantized: The quantized layers by component name, of those that were changed.
        load_peak_bytes: Most bytes on the device while it was made.
        weight_bytes: Bytes of all distinct storages, before any were offloaded.
        component_bytes: The same for each component.
    """

    pipeline: Any
    modules: Mapping[str, torch.nn.Module]
    runtime: Runtime
    quantized: Mapping[str, QuantizedLayers]
    load_peak_bytes: int
    weight_bytes: int
    component_bytes: Mapping[str, int]


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
    quantized: dict[str, QuantizedLayers] = {}
    with on_device(device), counter_for(device).watch() as reading:
        for name in loader.sizes:
            choice = candidate.components.get(name, Choice())
            if brings_weights(choice):
                module = without_weights(loader.outline(name)).to(dtype)
            else:
                module = loader.load(name, dtype)
                reading.hold(module)
            if choice != Choice():
                quantized[name] = apply_choice(module, choice, dtype)
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
        quantized=quantized,
        load_peak_bytes=reading.peak_bytes,
        weight_bytes=weight_bytes,
        component_bytes=component_bytes,
    )
