"""Seconds that a cold ``autoquant estimate`` takes for a directory of FLUX.1-dev's size.

The directory is made of headers and holes: 34 GB that take no disk. Run:
python benchmarks/estimate_cold.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

from autoquant.planner.footprint.shape_list import read_shape_list
from tests.planner.footprint.pipelines import MODELS, write_pipeline

RUNS = 5


def seconds(*arguments: str) -> float:
    """Median wall seconds of a fresh process."""
    taken = []
    for _ in range(RUNS):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "autoquant", *arguments], check=True, capture_output=True
        )
        taken.append(time.perf_counter() - started)
    return median(taken)


def main() -> None:
    """Print the medians."""
    with tempfile.TemporaryDirectory() as place:
        directory = write_pipeline(
            Path(place), read_shape_list(MODELS / "flux.1-dev.json"), shards=3
        )
        estimate = seconds("estimate", str(directory), "--vram", "16")
    print(f"autoquant estimate FLUX.1-dev --vram 16: {estimate:.2f} s")
    print(f"autoquant --help: {seconds('--help'):.2f} s")


if __name__ == "__main__":
    main()
