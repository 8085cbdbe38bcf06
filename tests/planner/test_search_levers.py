"""The search pulls levers where the budget needs them, and never combines what cannot be."""

from __future__ import annotations

from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.measurement import Measured
from autoquant.planner.parameters import number_of_candidates, refusal
from autoquant.planner.racing import Race
from autoquant.planner.search import search
from autoquant.planner.search_settings import SearchSettings
from autoquant.planner.selection import choose
from autoquant.search_spaces.levers import LeverConflict, LeverSpace
from autoquant.search_spaces.space import ComponentSpace, SearchSpace
from tests.planner.measurements import measured

SCHEMES = ("none", "torchao:int8wo", "quanto:int4")
SIZES_GB = {"transformer": 12.0, "text_encoder": 8.0}
SHARES = {"none": 1.0, "torchao:int8wo": 0.5, "quanto:int4": 0.28}
LOSSES = {"none": 0.0, "torchao:int8wo": 0.01, "quanto:int4": 0.05}
ACTIVATIONS_GB = 2.0

SPACE = SearchSpace(
    components={name: ComponentSpace(schemes=SCHEMES) for name in SIZES_GB},
    levers=LeverSpace(
        offload=("none", "model", "group_leaf"), compile=("none", "regional"), vae_tiling=(False,)
    ),
    conflicts=tuple(
        LeverConflict(
            component=name,
            scheme="quanto:int4",
            lever="offload",
            value="group_leaf",
            reason="its scales stay where they were",
        )
        for name in SIZES_GB
    ),
)


class Card:
    """Answers like a card whose memory and transfers follow the textbook."""

    def __init__(self) -> None:
        self.asked: list[Candidate] = []

    def measure(self, candidate: Candidate, race: Race | None = None) -> Measured:
        self.asked.append(candidate)
        held = {
            name: SIZES_GB[name] * SHARES[choice.scheme]
            for name, choice in candidate.components.items()
        }
        offload = candidate.runtime.offload
        on_card = {
            "none": sum(held.values()),
            "model": max(held.values()),
            "group_leaf": 0.5,
        }[offload]
        seconds = 10.0 * (0.7 if candidate.runtime.compile == "regional" else 1.0)
        seconds += {"none": 0.0, "model": 2.0, "group_leaf": 15.0}[offload]
        loss = sum(LOSSES[choice.scheme] for choice in candidate.components.values())
        return measured(
            loss=loss,
            peak_gb=on_card + ACTIVATIONS_GB,
            weights_gb=sum(held.values()),
            latency_s=seconds,
            component_gb=held,
        )


def planned(budget: Budget, runtime: Runtime | None = None, trials: int = 40) -> Candidate:
    card = Card()
    result = search(card, SPACE, budget, SearchSettings(trials=trials), runtime)
    assert all(refusal(candidate, SPACE) is None for candidate in card.asked)
    return choose(result.trials, budget).chosen.candidate


def test_a_model_that_would_fit_by_offload_is_not_quantized() -> None:
    chosen = planned(Budget(vram_gb=15))
    assert chosen.is_reference
    assert chosen.runtime.offload == "model"


def test_a_latency_that_offload_cannot_keep_is_kept_by_quantizing() -> None:
    chosen = planned(Budget(vram_gb=15, latency_s=8))
    assert chosen.runtime == Runtime(compile="regional")
    assert {choice.scheme for choice in chosen.components.values()} == {"torchao:int8wo"}


def test_a_card_that_is_too_small_for_one_component_gets_the_finest_offload() -> None:
    assert planned(Budget(vram_gb=3)).runtime.offload == "group_leaf"


def test_a_reference_that_had_to_be_offloaded_is_the_search_s_start() -> None:
    chosen = planned(Budget(vram_gb=15, latency_s=8), Runtime(offload="model"))
    assert chosen.runtime.offload == "none"


def test_only_allowed_combinations_count() -> None:
    # 9 pairs of schemes under 3 offloads and 2 ways to compile, less those with quanto:int4 under
    # group offload.
    assert number_of_candidates(SPACE) == 9 * 3 * 2 - 5 * 2
