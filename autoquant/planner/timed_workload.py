"""Draw a workload with a built pipeline: images, memory and seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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

Stops = Callable[[Sequence[Images], Sequence[float]], bool]
"""Takes the images of each call so far and the seconds of each timed one: whether to end there."""


@dataclass(frozen=True)
class WarmUp:
    """The first call: its images, the memory that it took, and its seconds."""

    images: Images
    peak_bytes: int
    other_counters: Mapping[str, int]
    seconds: float


@dataclass(frozen=True)
class Drawn:
    """A workload's images, and what drawing them cost."""

    images: Images
    peak_bytes: int
    other_counters: Mapping[str, int]
    latency_s: LatencySummary
    compile_s: float


def warm_up(built: BuiltPipeline, workload: Workload, device: torch.device) -> WarmUp:
    """Make the first call, which counts memory and compiles what is to be compiled."""
    announce("warm up")
    first = next(workload.batches())
    counter = counter_for(device)
    compiles = built.runtime.compile != "none"
    if compiles and counter.sees_compiled_code:
        compile_denoisers(built.pipeline, built.runtime.compile)
    with timed(device) as clock, counter.watch(*built.modules.values()) as reading:
        images = draw(built.pipeline, workload, first)
    if compiles and not counter.sees_compiled_code:
        compile_denoisers(built.pipeline, built.runtime.compile)
        with timed(device) as clock:
            images = draw(built.pipeline, workload, first)
    return WarmUp(images, reading.peak_bytes, dict(reading.additional_bytes), clock.seconds)


def draw_workload(
    built: BuiltPipeline,
    warm: WarmUp,
    workload: Workload,
    device: torch.device,
    stops: Stops = lambda images, seconds: False,
) -> Drawn:
    """Draw every further sample under the clock, unless ``stops`` ends it.

    The images of the first call are those of ``warm``; it is made again where fewer than three
    others are there to be timed.
    """
    announce("draw")
    first, *others = workload.batches()
    repeats = [first] * max(0, _LEAST_TIMED_CALLS - len(others))
    images, seconds = [warm.images], list[float]()
    # Around all calls: the beginning of a limit gives the allocator's blocks back, and the next
    # call has to wait for new ones.
    with held_to(device, _limit_bytes(warm.peak_bytes)):
        for batch in [*others, *repeats]:
            drawn, (took_s,) = draw_timed(built, workload, [batch], device)
            seconds.append(took_s)
            if len(images) <= len(others):
                images += drawn
                if len(images) <= len(others) and stops(images, seconds):
                    break
    latency_s = summarize(seconds)
    return Drawn(
        images=np.concatenate(images),
        peak_bytes=warm.peak_bytes,
        other_counters=warm.other_counters,
        latency_s=latency_s,
        compile_s=compile_seconds(built, warm.seconds, latency_s),
    )


def draw_as_it_runs(
    built: BuiltPipeline, workload: Workload, device: torch.device
) -> tuple[Images, tuple[float, ...], float]:
    """Draw every sample, compiled where the runtime says so; no memory is counted.

    Returns:
        The images; the seconds of each call, without the one that warms up; and the seconds that
        compiling took.
    """
    first, *others = workload.batches()
    announce("warm up")
    if built.runtime.compile != "none":
        compile_denoisers(built.pipeline, built.runtime.compile)
    (warmed,), (first_s,) = draw_timed(built, workload, [first], device)
    announce("draw")
    images, seconds = draw_timed(built, workload, others, device)
    compile_s = compile_seconds(built, first_s, summarize(seconds)) if seconds else 0.0
    return np.concatenate([warmed, *images]), tuple(seconds), compile_s


def compile_seconds(built: BuiltPipeline, first_s: float, usual: LatencySummary) -> float:
    """What the first call took longer than others, where something is compiled in it."""
    if built.runtime.compile == "none":
        return 0.0
    return max(0.0, first_s - usual.median)


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
