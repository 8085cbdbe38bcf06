"""Draw a workload with a built pipeline: images, memory and seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from autoquant.metrics.latency import LatencySummary, summarize, timed
from autoquant.metrics.memory import counter_for
from autoquant.planner.building import BuiltPipeline
from autoquant.planner.drawing import Images, draw
from autoquant.planner.levers import compile_denoisers
from autoquant.planner.measurement import GIB
from autoquant.planner.memory_faults import held_to
from autoquant.planner.phases import announce, limit_gb
from autoquant.planner.workload import Sample, Workload

# A median of fewer calls has no quartiles to speak of.
_LEAST_TIMED_CALLS = 3


@dataclass(frozen=True)
class Drawn:
    """A workload's images, and what drawing them cost."""

    images: Images
    peak_bytes: int
    other_counters: Mapping[str, int]
    latency_s: LatencySummary
    compile_s: float


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
    with held_to(device, _limit_bytes(reading.peak_bytes)):
        images, seconds = draw_timed(built, workload, [*batches, *repeats], device)
    latency_s = summarize(seconds)
    return Drawn(
        images=np.concatenate(images[: len(batches)]),
        peak_bytes=reading.peak_bytes,
        other_counters=dict(reading.additional_bytes),
        latency_s=latency_s,
        compile_s=max(0.0, first_call.seconds - latency_s.median) if compiles else 0.0,
    )


def draw_as_it_runs(
    built: BuiltPipeline, workload: Workload, device: torch.device
) -> tuple[Images, tuple[float, ...], float]:
    """Draw every sample, compiled where the runtime says so; no memory is counted.

    Returns:
        The images; the seconds of each call, without the one that warms up; and the seconds that
        compiling took.
    """
    batches = list(workload.batches())
    if built.runtime.compile == "none":
        announce("draw")
        images, seconds = draw_timed(built, workload, batches, device)
        return np.concatenate(images), tuple(seconds[1:]), 0.0
    announce("warm up")
    compile_denoisers(built.pipeline, built.runtime.compile)
    with timed(device) as first_call:
        draw(built.pipeline, workload, batches[0])
    announce("draw")
    images, seconds = draw_timed(built, workload, batches, device)
    compile_s = max(0.0, first_call.seconds - summarize(seconds).median)
    return np.concatenate(images), tuple(seconds), compile_s


def draw_timed(
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
