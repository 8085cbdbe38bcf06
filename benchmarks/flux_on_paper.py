"""GPU minutes that a search of FLUX.1-dev would take on an H100, from published latencies.

On paper: nothing here was run on a GPU. The latencies are those of the table of
huggingface.co/blog/diffusers-quantization (50 steps, 1024 x 1024, H100), without offload and
compile. How many candidates are measured, how many images each draws and which begin with the
transformer of the one before comes from searches on the recorded demo table. The seconds to load
and quantize a candidate are a guess, as nobody published them.

    python benchmarks/flux_on_paper.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median

sys.path.insert(0, str(Path(__file__).parent.parent))

from autoquant.planner.candidate import Candidate
from autoquant.planner.confirmation import unseen_workload
from autoquant.planner.layer_study import screening_workload
from autoquant.planner.measurement import Measured, Trial
from autoquant.planner.racing import Race, stopped
from autoquant.planner.search import search
from autoquant.planner.search_settings import SearchSettings
from autoquant.planner.workload import DEFAULT_PROMPTS, UNSEEN_PROMPTS, Workload
from benchmarks.recorded_table import TABLE, RecordedTable
from benchmarks.search_runs import random_budgets

# Seconds of a call: bf16, nf4, bitsandbytes int8, torchao int8wo and float8wo, quanto int8 and
# float8, GGUF Q2_K, Q4_1 and Q8_0, layerwise float8; then int4 of torchao and quanto, which need
# compiling to be of use.
PUBLISHED_S = (12, 12, 27, 15, 15, 15, 16, 26, 23, 15, 13)
UNCOMPILED_INT4_S = (109, 109)
PUBLISHED_STEPS = 50
# Bytes of the files of FLUX.1-dev: 23.8 GB of 33.7 GB are the transformer's.
TRANSFORMER_SHARE = 0.7
# A candidate is called once to warm up, which draws its first image, and timed three times.
FEWEST_CALLS = 4
# Final projection, embedders, attention, feed-forward, modulation.
LAYER_GROUPS = 5


class OneImageACall:
    """Answers from the table, as if each call drew one image."""

    def __init__(self, table: RecordedTable) -> None:
        self._table = table

    def measure(self, candidate: Candidate, race: Race | None = None) -> Measured:
        """Answer a candidate, as far as it would have been drawn in a race."""
        whole = self._table.measure(candidate)
        return whole if race is None else stopped(whole, race, 1)


@dataclass(frozen=True)
class Effort:
    """How many candidates are measured, how many whole pipelines' bytes loaded, and the calls."""

    candidates: int
    loads: float
    calls: float

    def minutes(self, call_s: float, load_s: float) -> float:
        """Wall minutes if a call and a load take so many seconds."""
        return (self.loads * load_s + self.calls * call_s) / 60


def around(prompts: int, steps: int) -> Effort:
    """One look into the transformer's layers, and the confirmation of the winner.

    Both draw the unquantized pipeline twice, once for the noise floor. Groups of layers leave the
    text encoders in place.
    """
    workload = Workload(prompts=DEFAULT_PROMPTS[:prompts], height=1024, width=1024, steps=steps)
    screen, unseen = screening_workload(workload), unseen_workload(workload, UNSEEN_PROMPTS)
    drawn = (2 + LAYER_GROUPS) * len(screen.samples) * screen.steps / steps
    return Effort(
        candidates=0,
        loads=1 + LAYER_GROUPS * TRANSFORMER_SHARE + 2,
        calls=drawn + 3 * len(unseen.samples),
    )


def efforts(prompts: int, budgets: int, *, stop_early: bool) -> Iterator[Effort]:
    """Searches under random budgets, with so many prompts and the usual limit of trials."""
    table = RecordedTable(TABLE).restricted({}, prompts=prompts)
    settings = SearchSettings(stop_early=stop_early)
    for budget, _ in random_budgets(table, budgets):
        trials = search(OneImageACall(table), table.space, budget, settings).trials
        kept = sum(_transformer(one) == _transformer(next) for one, next in pairwise(trials))
        noise_floor = prompts
        yield Effort(
            candidates=len(trials),
            loads=len(trials) - TRANSFORMER_SHARE * kept,
            calls=sum(_calls(trial, prompts) for trial in trials) + noise_floor,
        )


def _calls(trial: Trial, prompts: int) -> int:
    undrawn = 0 if trial.measured is None else trial.measured.undrawn_images
    return prompts - undrawn if undrawn else max(FEWEST_CALLS, prompts)


def _transformer(trial: Trial) -> tuple[object, object]:
    return trial.candidate.components["transformer"], trial.candidate.runtime


def main() -> None:
    """Print the minutes for some workloads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budgets", type=int, default=40)
    parser.add_argument("--load", type=float, default=30.0, help="seconds, a guess")
    arguments = parser.parse_args()
    usual, all_of_them = median(PUBLISHED_S), fmean((*PUBLISHED_S, *UNCOMPILED_INT4_S))
    print(
        "| prompts | stopped early | candidates | loads | calls | steps "
        f"| at the median, {usual:g} s | with layers and confirmation "
        f"| at the mean, {all_of_them:.0f} s | with layers and confirmation |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for prompts, stop_early in ((8, False), (8, True), (4, True)):
        known = list(efforts(prompts, arguments.budgets, stop_early=stop_early))
        counts = (
            f"{prompts} | {'yes' if stop_early else 'no'} "
            f"| {fmean(it.candidates for it in known):.1f} "
            f"| {fmean(it.loads for it in known):.1f} | {fmean(it.calls for it in known):.0f}"
        )
        for steps in (50, 28):
            minutes = []
            for published_s in (usual, all_of_them):
                cost = (published_s * steps / PUBLISHED_STEPS, arguments.load)
                searched = fmean(it.minutes(*cost) for it in known)
                minutes += [searched, searched + around(prompts, steps).minutes(*cost)]
            cells = " | ".join(f"{each:.0f} min" for each in minutes)
            print(f"| {counts} | {steps} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
