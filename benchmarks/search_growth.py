"""How the cost of a search grows with components, choices and prompts, from the recorded table.

Each is doubled twice, the others stay; budgets are random as in search_methods.py:

    OMP_NUM_THREADS=1 python benchmarks/search_growth.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.recorded_table import TABLE, RecordedTable
from benchmarks.search_runs import autoquant_search, is_within, random_budgets

# The schemes of the smallest table, of the one twice as large, and of the whole one.
CHOICES: tuple[dict[str, tuple[str, ...]], ...] = (
    {
        "transformer": ("bitsandbytes:nf4", "torchao:int8wo"),
        "text_encoder_2": ("bitsandbytes:nf4",),
        "text_encoder": ("bitsandbytes:nf4",),
    },
    {
        "transformer": ("bitsandbytes:nf4", "torchao:int8wo", "gguf:Q8_0", "gguf:Q5_0"),
        "text_encoder_2": ("bitsandbytes:nf4", "torchao:int8wo"),
        "text_encoder": ("bitsandbytes:nf4", "torchao:int8wo"),
    },
    {},
)


def growing(table: RecordedTable) -> list[tuple[str, str, RecordedTable]]:
    """What grows, how far, and the table of that size."""
    return [
        ("decisions", "1: transformer", table.restricted(_only("transformer"), 1)),
        (
            "decisions",
            "2: transformer, T5",
            table.restricted(_only("transformer", "text_encoder_2"), 1),
        ),
        ("decisions", "4: transformer, T5, CLIP, VAE slicing", table),
        *(
            ("choices", _count(smaller), smaller)
            for smaller in (table.restricted(schemes) for schemes in CHOICES)
        ),
        *(("prompts", f"{n}", table.restricted({}, prompts=n)) for n in (4, 8, 16)),
    ]


def _only(*components: str) -> dict[str, tuple[str, ...]]:
    return {name: () for name in ("text_encoder_2", "text_encoder") if name not in components}


def _count(table: RecordedTable) -> str:
    return " + ".join(str(len(choices)) for choices in table.choices.values())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budgets", type=int, default=40)
    arguments = parser.parse_args()
    print("| what grows | to | candidates | trials | seconds | of exhaustive | within 1% |")
    print("|---|---|---|---|---|---|---|")
    for what, size, table in growing(RecordedTable(TABLE)):
        everything_s = sum(table.entries["columns"]["seconds"])
        steps = []
        found = []
        for budget, best in random_budgets(table, arguments.budgets):
            ledger = autoquant_search(table, budget, 0)
            steps.append(ledger.steps)
            found.append(is_within(ledger.steps[-1].loss, best))
        seconds = fmean(run[-1].seconds for run in steps)
        print(
            f"| {what} | {size} | {len(table)} | {fmean(map(len, steps)):.1f} | {seconds:.0f} "
            f"| {seconds / everything_s:.1%} | {fmean(found):.0%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
