"""Spaces that leave nothing to choose, and budgets that nothing keeps."""

from __future__ import annotations

import pytest

from autoquant.errors import CandidateFailed, InfeasibleBudget
from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate
from autoquant.planner.measurement import Measured
from autoquant.planner.racing import Race
from autoquant.planner.search import search
from autoquant.planner.search_result import SearchResult
from autoquant.planner.search_settings import SearchSettings
from autoquant.planner.selection import choose
from autoquant.search_spaces.space import ComponentSpace, SearchSpace
from tests.planner.measurements import measured

BITS = {"none": 16, "fake:int8": 8, "fake:int4": 4, "slow:int2": 2}
SPACE = SearchSpace(
    components={name: ComponentSpace(schemes=tuple(BITS)) for name in ("transformer", "encoder")}
)


class Textbook:
    """Memory falls with the bits, seconds and losses rise."""

    def measure(self, candidate: Candidate, race: Race | None = None) -> Measured:
        schemes = [choice.scheme for choice in candidate.components.values()]
        held = {n: BITS[c.scheme] / 4 for n, c in candidate.components.items()}
        return measured(
            loss=sum((16 - BITS[scheme]) / 100 for scheme in schemes),
            weights_gb=sum(held.values()),
            peak_gb=sum(held.values()) + 0.5,
            component_gb=held,
            latency_s=1.0 + sum(16 - BITS[scheme] for scheme in schemes) / 10,
        )


class FailsOn(Textbook):
    """Cannot measure whatever holds one scheme."""

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme

    def measure(self, candidate: Candidate, race: Race | None = None) -> Measured:
        if any(choice.scheme == self._scheme for choice in candidate.components.values()):
            raise CandidateFailed("Metric 'flip' is nan for prompt 3 ('a red circle').")
        return super().measure(candidate)


def run(space: SearchSpace, budget: Budget) -> SearchResult:
    return search(Textbook(), space, budget, SearchSettings(trials=16))


@pytest.mark.parametrize(
    ("limits", "needs"),
    [
        ({"vram_gb": 3.0, "latency_s": 1.5}, "the smallest found needs 1.50 GB, the fastest"),
        ({"vram_gb": 3.0, "max_loss": 0.0}, "a loss of 0"),
        ({"latency_s": 0.5}, "1.00 s"),
    ],
)
def test_limits_that_contradict_each_other_end_soon_and_the_nearest_point_is_named(
    limits: dict[str, float], needs: str
) -> None:
    budget = Budget.of(**limits)
    result = run(SPACE, budget)
    assert len(result.trials) <= 12
    with pytest.raises(InfeasibleBudget, match=needs) as failure:
        choose(result.trials, budget)
    assert "would be enough for" in str(failure.value)


def test_a_space_with_one_choice_is_measured_once() -> None:
    space = SearchSpace(components={"transformer": ComponentSpace(schemes=("none",))})
    (only,) = run(space, Budget.of(vram_gb=100)).trials
    assert only.candidate.is_reference
    result = run(space, Budget.of(vram_gb=1))
    assert len(result.trials) == 1
    with pytest.raises(InfeasibleBudget, match=r"4\.50 GB would be enough"):
        choose(result.trials, Budget.of(vram_gb=1))


def test_a_component_without_a_choice_stays_as_it_is() -> None:
    space = SearchSpace(
        components={**SPACE.components, "encoder": ComponentSpace(schemes=("none",))}
    )
    result = run(space, Budget.of(vram_gb=5.6))
    chosen = choose(result.trials, Budget.of(vram_gb=5.6)).chosen.candidate.components
    assert chosen["encoder"].scheme == "none"
    assert chosen["transformer"].scheme == "fake:int4"


def test_a_pipeline_without_a_searched_component_is_planned_as_it_is() -> None:
    class Fixed:
        def measure(self, candidate: Candidate, race: Race | None = None) -> Measured:
            return measured(peak_gb=2.0)

    result = search(Fixed(), SearchSpace(components={}), Budget.of(vram_gb=4))
    assert len(result.trials) == 1
    assert choose(result.trials, Budget.of(vram_gb=4)).chosen.candidate.components == {}


def test_a_scheme_whose_images_cannot_be_scored_is_left_for_another() -> None:
    budget = Budget.of(vram_gb=5.6)
    result = search(FailsOn("fake:int8"), SPACE, budget, SearchSettings(trials=16))
    failed = [trial for trial in result.trials if trial.failure]
    assert 1 <= len(failed) <= 4
    assert all("flip" in str(trial.failure) for trial in failed)
    schemes = {c.scheme for c in choose(result.trials, budget).chosen.candidate.components.values()}
    assert schemes == {"none", "fake:int4"}
