"""The process that measures: one JSON message a line in, one a line out.

It is started by ``process_evaluator`` and holds everything that a kernel can take down with it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import IO

from autoquant.console.quiet import quiet_libraries
from autoquant.errors import AutoquantError, CandidateFailed
from autoquant.planner.messages import Compare, Failed, Measure, Prepare, Refused, Reply, read_order


def serve(orders: IO[str], replies: IO[str]) -> None:
    """Answer orders until there are no more."""
    from autoquant.planner.preparation import prepare

    def reply(message: Reply) -> None:
        replies.write(message.model_dump_json() + "\n")
        replies.flush()

    evaluator = None
    for line in orders:
        order = read_order(line)
        try:
            if isinstance(order, Prepare):
                preparation, evaluator = prepare(order.request, Path(order.image_root))
                reply(preparation)
            elif isinstance(order, Measure) and evaluator is not None:
                reply(evaluator.answer(order.candidate))
            elif isinstance(order, Compare) and evaluator is not None:
                reply(evaluator.compare(order.candidate, order.workload))
        except CandidateFailed as failure:
            reply(Failed(reason=str(failure)))
        except AutoquantError as error:
            reply(Refused(error=type(error).__name__, message=str(error)))


def main() -> None:
    """Serve on the standard streams; what libraries print goes to the error stream."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    quiet_libraries()
    serve(sys.stdin, replies)


if __name__ == "__main__":
    main()
