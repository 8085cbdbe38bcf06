"""Host memory is predicted, so that what misses a limit on it is passed over."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from autoquant.planner.axes import axes_of, indices_of, positions_of
from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.forecast import Predictor
from autoquant.planner.measurement import Measured, Trial
from autoquant.planner.priors import Priors
from autoquant.planner.racing import Race
from autoquant.planner.search import search
from autoquant.planner.search_settings import SearchSettings
from autoquant.planner.selection import choose, is_feasible
from autoquant.search_spaces.levers import LeverSpace
from autoquant.search_spaces.scheme import Choice
from autoquant.search_spaces.space import ComponentSpace, SearchSpace
from tests.planner.measurements import measured

SIZES_GB = {"transformer": 12.0, "text_encoder": 8.0}
BITS = {"none": 16, "fake:int8": 8, "other:int8": 8, "fake:int4": 4}
BESIDE_GB, ACTIVATIONS_GB = 1.0, 2.0
SPACE = SearchSpace(
    components={name: ComponentSpace(schemes=tuple(BITS)) for name in SIZES_GB},
    levers=LeverSpace(offload=("none", "model", "sequential"), vae_tiling=(False,)),
)


class Machine:
    """A card beside its host, or a host alone, whose memory follows the textbook."""

    def __init__(self, counter: str) -> None:
        self._counter = counter

    def measure(self, candidate: Candidate, race: Race | None = None) -> Measured:
        held = {n: SIZES_GB[n] * BITS[c.scheme] / 16 for n, c in candidate.components.items()}
        offload = candidate.runtime.offload
        on_device = {"none": sum(held.values()), "model": max(held.values()), "sequential": 0.5}
        stays = offload != "none" or self._counter.startswith("cpu")
        loading = max(SIZES_GB["transformer"], held["transformer"] + SIZES_GB["text_encoder"])
        return measured(
            loss=sum((16 - BITS[c.scheme]) / 100 for c in candidate.components.values()),
            component_gb=held,
            weights_gb=sum(held.values()),
            peak_gb=on_device[offload] + ACTIVATIONS_GB,
            latency_s={"none": 10.0, "model": 12.0, "sequential": 40.0}[offload],
            ram_gb=BESIDE_GB + (loading if stays else SIZES_GB["transformer"]),
            counter=self._counter,
        )


def candidate(transformer: str, text_encoder: str, offload: str = "none") -> Candidate:
    return Candidate(
        components={
            "transformer": Choice(scheme=transformer),
            "text_encoder": Choice(scheme=text_encoder),
        },
        runtime=Runtime.model_validate({"offload": offload}),
    )


@pytest.mark.parametrize("counter", ["cuda.reserved", "cpu.tracked_tensors"])
def test_weights_that_stay_in_ram_are_counted_before_anything_is_measured_there(
    counter: str,
) -> None:
    machine, unchanged = Machine(counter), candidate("none", "none")
    reference = machine.measure(unchanged)
    axes = axes_of(SPACE, Runtime())
    predictor = Predictor(
        Priors(axes),
        reference,
        [Trial(number=0, candidate=unchanged, measured=reference)],
        budget=Budget.of(ram_gb=64),
    )
    for what in (unchanged, candidate("none", "none", "model"), candidate("fake:int8", "none")):
        forecast = predictor.forecast(positions_of(np.array([indices_of(what, axes)])))
        assert forecast.ram_gb is not None
        assert forecast.ram_gb[0] == pytest.approx(machine.measure(what).ram_gb, abs=1.0)


def test_a_limit_on_ram_is_not_missed_over_and_over() -> None:
    machine = Machine("cuda.reserved")
    budget = Budget.of(vram_gb=6, ram_gb=13.5)
    result = search(machine, SPACE, budget, SearchSettings(trials=48))
    chosen = choose(result.trials, budget).chosen
    every = [
        machine.measure(candidate(*schemes, offload))
        for *schemes, offload in product(BITS, BITS, ("none", "model", "sequential"))
    ]
    assert chosen.measured is not None
    assert chosen.measured.loss == min(m.loss for m in every if is_feasible(m, budget))
    missed = [t for t in result.trials if t.measured and (t.measured.ram_gb or 0) > 13.5]
    assert len(missed) <= 6  # 13 where it is not predicted
