"""GPU minutes that a search of FLUX.1-dev would take on an H100, from published latencies.

On paper: nothing here was run on a GPU. The latencies are those of the table of
huggingface.co/blog/diffusers-quantization (50 steps, 1024 x 1024, H100), without offload and
compile; the number of trials is what the recorded demo table needs; the seconds to load and
quantize one candidate are a guess, as nobody published them.

    python benchmarks/flux_on_paper.py --trials 20
"""

from __future__ import annotations

import argparse
from statistics import fmean, median

# Seconds of a call: bf16, nf4, bitsandbytes int8, torchao int8wo and float8wo, quanto int8 and
# float8, GGUF Q2_K, Q4_1 and Q8_0, layerwise float8; then int4 of torchao and quanto, which need
# compiling to be of use.
PUBLISHED_S = (12, 12, 27, 15, 15, 15, 16, 26, 23, 15, 13)
UNCOMPILED_INT4_S = (109, 109)
PUBLISHED_STEPS = 50


def minutes(trials: int, prompts: int, steps: int, call_s: float, load_s: float) -> float:
    """One call to warm up and count memory, and one for each prompt, in every trial."""
    return trials * (load_s + (1 + prompts) * call_s * steps / PUBLISHED_STEPS) / 60


def main() -> None:
    """Print the minutes for some workloads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--load", type=float, default=30.0, help="seconds, a guess")
    arguments = parser.parse_args()
    usual, all_of_them = median(PUBLISHED_S), fmean((*PUBLISHED_S, *UNCOMPILED_INT4_S))
    print(f"| prompts | steps | at the median, {usual:g} s | at the mean, {all_of_them:.0f} s |")
    print("|---|---|---|---|")
    for prompts, steps in ((8, 50), (8, 28), (4, 28), (4, 14)):
        cells = [
            f"{minutes(arguments.trials, prompts, steps, seconds, arguments.load):.0f} min"
            for seconds in (usual, all_of_them)
        ]
        print(f"| {prompts} | {steps} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
