"""What planning costs beside measuring, in a real search on the demo pipeline.

Overhead is everything that is not loading, quantizing, drawing or scoring. Seconds are CPU seconds
of one process that plans and measures, so that other work on the machine does not count:

    OMP_NUM_THREADS=1 python benchmarks/planner_overhead.py
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from autoquant.console.quiet import quiet_libraries
from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate
from autoquant.planner.evaluator import AnsweringEvaluator
from autoquant.planner.measurement import Measured
from autoquant.planner.parameters import number_of_candidates
from autoquant.planner.preparation import prepare
from autoquant.planner.racing import Race
from autoquant.planner.request import Request
from autoquant.planner.search import search
from autoquant.planner.search_settings import SearchSettings


class Clock:
    """Asks another evaluator and adds up its CPU seconds."""

    def __init__(self, evaluator: AnsweringEvaluator) -> None:
        self._evaluator = evaluator
        self.seconds = 0.0

    def measure(self, candidate: Candidate, race: Race | None = None) -> Measured:
        """Measure a candidate."""
        started = time.process_time()
        try:
            return self._evaluator.answer(candidate, race).measured
        finally:
            self.seconds += time.process_time() - started


def main() -> None:
    """Search, and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vram", type=float, default=0.006)
    parser.add_argument("--trials", type=int, default=40)
    arguments = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    with TemporaryDirectory() as images:
        request = Request(pipeline="demo", metric="flip", download=False)
        prepared, evaluator = prepare(request, Path(images))
        # As the process that measures does: collecting garbage would take a third of a trial.
        gc.collect()
        gc.freeze()
        clock = Clock(evaluator)
        started = time.process_time()
        result = search(
            clock,
            prepared.space,
            Budget.of(vram_gb=arguments.vram),
            SearchSettings(trials=arguments.trials),
            prepared.runtime,
        )
        total = time.process_time() - started
    overhead = total - clock.seconds
    print(
        f"{number_of_candidates(prepared.space)} candidates in the space, "
        f"{len(result.trials)} measured: {clock.seconds:.1f} s to measure, {overhead:.2f} s to "
        f"plan ({1000 * overhead / len(result.trials):.0f} ms a trial): {overhead / total:.1%}"
    )


if __name__ == "__main__":
    main()
