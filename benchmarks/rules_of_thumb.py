"""What people do without measuring, as functions from a budget to a candidate.

The rules see the true bytes of the recorded table where they would only guess, and none looks at
latency, as none does in practice. Offload is not among them: the table is of a CPU, which has
nowhere to offload to.
"""

from __future__ import annotations

from collections.abc import Callable

from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate
from autoquant.search_spaces.scheme import NONE, Choice
from benchmarks.recorded_table import RecordedTable

# FLUX.1-dev's peak on an H100 in bfloat16 (huggingface.co/blog/diffusers-quantization), by which
# the three buckets of GPU memory are scaled to the demo.
_FLUX_PEAK_GB = 36.166

# From the widest to the narrowest, of what the table holds.
_LADDER = (NONE, "torchao:float8wo", "torchao:int8wo", "sdnq:int6", "gguf:Q5_0",
           "bitsandbytes:nf4", "quanto:int2")  # fmt: skip

Rule = Callable[[RecordedTable, Budget], Candidate | None]


def unquantized(table: RecordedTable, budget: Budget) -> Candidate:
    """Leave it in bfloat16."""
    return _everywhere(table, NONE)


def nf4_on_the_large_ones(table: RecordedTable, budget: Budget) -> Candidate:
    """bitsandbytes nf4 on the transformer and T5."""
    made = {name: Choice() for name in table.choices}
    for name in ("transformer", "text_encoder_2"):
        made[name] = Choice(scheme="bitsandbytes:nf4")
    return Candidate(components=made, runtime=table.runtimes[0])


def three_buckets(table: RecordedTable, budget: Budget) -> Candidate:
    """Up to 8 GB: 4 bits; up to 24 GB: 8 bits; above: bfloat16; for a card of FLUX.1's scale."""
    assert budget.vram_gb is not None
    scale = _FLUX_PEAK_GB / table.measure(unquantized(table, budget)).peak_gb
    card_gb = budget.vram_gb * scale
    if card_gb > 24:
        return _everywhere(table, NONE)
    return _everywhere(table, "torchao:int8wo" if card_gb > 8 else "bitsandbytes:nf4")


def precision_ladder(table: RecordedTable, budget: Budget) -> Candidate | None:
    """The widest precision, the same for every component, that fits."""
    assert budget.vram_gb is not None
    for scheme in _LADDER:
        candidate = _everywhere(table, scheme)
        if table.measure(candidate).peak_gb <= budget.vram_gb:
            return candidate
    return None


def half_as_much_again(table: RecordedTable, budget: Budget) -> Candidate | None:
    """The widest precision of which the weights times 1.5 fit."""
    assert budget.vram_gb is not None
    for scheme in _LADDER:
        candidate = _everywhere(table, scheme)
        if table.measure(candidate).weights_gb * 1.5 <= budget.vram_gb:
            return candidate
    return None


def _everywhere(table: RecordedTable, scheme: str) -> Candidate:
    """One scheme for every component that has it; the next wider one of the ladder for others."""
    made = {}
    for name, component in table.space.components.items():
        wider = _LADDER[_LADDER.index(scheme) :: -1]
        made[name] = Choice(scheme=next(it for it in wider if it in component.schemes))
    return Candidate(components=made, runtime=table.runtimes[0])


RULES: dict[str, Rule] = {
    "bfloat16": unquantized,
    "nf4 on transformer and T5": nf4_on_the_large_ones,
    "three buckets of GPU memory": three_buckets,
    "precision ladder": precision_ladder,
    "weights × 1.5": half_as_much_again,
}
