"""Start what measures a pipeline, when the first measurement is needed."""

from __future__ import annotations

from contextlib import ExitStack

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

    A worker measures what can be named, until ``stack`` ends; an object in memory is measured where
    it is.
    """
    images = study.store.image_root
    if isinstance(request.pipeline, str):
        evaluator = stack.enter_context(
            ProcessEvaluator(request, images, study.events, worker, vram_gb)
        )
        return evaluator.preparation, evaluator
    from autoquant.planner.preparation import prepare

    return prepare(request, images)
