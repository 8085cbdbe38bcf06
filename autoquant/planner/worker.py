"""The process that measures: one JSON message a line in, one a line out.

It is started by ``process_evaluator`` and holds everything that a kernel can take down with it.
"""

from __future__ import annotations

import gc
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from autoquant.console.quiet import quiet_libraries
from autoquant.errors import AutoquantError, CandidateFailed
from autoquant.planner.evaluator import AnsweringEvaluator
from autoquant.planner.health import Health, HealthCheck
from autoquant.planner.messages import (
    Compare,
    Entered,
    Failed,
    Measure,
    Prepare,
    Refused,
    Reply,
    read_order,
)
from autoquant.planner.phases import limited_to, listening
from autoquant.planner.request import Preparation, Request

Prepared = tuple[Preparation, AnsweringEvaluator, Callable[[], Health]]
PrepareFunction = Callable[[Request, Path], Prepared]


def serve(orders: Iterable[str], replies: IO[str], prepare: PrepareFunction) -> None:
    """Answer orders until there are no more."""

    def reply(message: Reply) -> None:
        replies.write(message.model_dump_json() + "\n")
        replies.flush()

    evaluator: AnsweringEvaluator | None = None
    health: Callable[[], Health] | None = None
    with listening(lambda phase: reply(Entered(phase=phase))):
        for line in orders:
            order = read_order(line)
            try:
                if isinstance(order, Prepare):
                    prepared = prepare(order.request, Path(order.image_root))
                    preparation, evaluator, health = prepared
                    reply(preparation)
                elif isinstance(order, Measure) and evaluator is not None:
                    with limited_to(order.limit_gb):
                        reply(evaluator.answer(order.candidate, order.race))
                elif isinstance(order, Compare) and evaluator is not None:
                    reply(evaluator.compare(order.candidate, order.workload, timed=order.timed))
                elif health is not None:
                    reply(health())
            except CandidateFailed as failure:
                reply(Failed(reason=str(failure), bound_gb=failure.bound_gb))
            except AutoquantError as error:
                reply(Refused(error=type(error).__name__, message=str(error)))


def main() -> None:
    """Serve on the standard streams, measuring on the device."""
    serve_standard_streams(_prepare_on_the_device)


def _prepare_on_the_device(request: Request, image_root: Path) -> Prepared:
    quiet_libraries()
    from autoquant.metrics.device import resolve_device
    from autoquant.planner.preparation import prepare

    _set_aside_what_stays()
    health = HealthCheck(resolve_device(request.device))
    preparation, evaluator = prepare(request, image_root)
    _set_aside_what_stays()
    return preparation, evaluator, lambda: health(evaluator.kept_bytes)


def _set_aside_what_stays() -> None:
    """Garbage is looked for between any two candidates, but not among what the libraries made."""
    gc.collect()
    gc.freeze()


def serve_standard_streams(prepare: PrepareFunction) -> None:
    """Serve on the standard streams; what libraries print goes to the error stream."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(_until_the_planner_is_gone(sys.stdin), replies, prepare)


def _until_the_planner_is_gone(stdin: IO[str]) -> Iterator[str]:
    """Yield orders; when their stream ends this process ends, in the middle of a measurement too.

    A planner that was killed cannot end its worker, which would go on to hold the device.
    """
    lines: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        yield lines.get()


if __name__ == "__main__":
    main()
