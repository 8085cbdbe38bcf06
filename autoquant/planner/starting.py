"""Start what measures a pipeline, when the first measurement is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from autoquant.planner.evaluator import AnsweringEvaluator
from autoquant.planner.measuring_process import WORKER
from autoquant.planner.process_evaluator import ProcessEvaluator
from autoquant.planner.request import Preparation, Request
from autoquant.planner.study_directory import StudyDirectory


def start_measuring(
    request: Request,
    study: StudyDirectory,
    stack: ExitStack,
    vram_gb: float | None = None,
    worker: str = WORKER,
) -> tuple[Preparation, AnsweringEvaluator]:
    """Measure the reference, and return what measures candidates.

    A worker measures what can be named, until ``stack`` ends. Copies of an object in memory are
    measured in this process, which keeps the object off an accelerator until then.
    """
    images = study.store.image_root
    if isinstance(request.pipeline, str):
        evaluator = stack.enter_context(
            ProcessEvaluator(request, images, study.events, worker, vram_gb)
        )
        return evaluator.preparation, evaluator
    from autoquant.planner.preparation import prepare

    stack.enter_context(off_the_card(request.pipeline))
    return prepare(request, images)


@contextmanager
def off_the_card(pipeline: Any) -> Iterator[None]:
    """Keep a pipeline's modules in host memory inside, and put them back where they were.

    The allocator's peaks and what is left of the card would be those of the pipeline and its copy.
    Modules that a hook moves, or that lie on more than one device, are left alone.
    """
    import torch

    homes = []
    for module in getattr(pipeline, "components", {}).values():
        if not isinstance(module, torch.nn.Module):
            continue
        devices = {weight.device for weight in (*module.parameters(), *module.buffers())}
        hooked = any(hasattr(part, "_hf_hook") for part in module.modules())
        if len(devices) == 1 and not hooked and next(iter(devices)).type != "cpu":
            homes.append((module, devices.pop()))
    try:
        for module, _ in homes:
            module.to("cpu")
        yield
    finally:
        for module, home in homes:
            module.to(home)
