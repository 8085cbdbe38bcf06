from __future__ import annotations

import itertools
from collections.abc import Collection

import pytest

from autoquant.errors import InfeasibleBudget, InputError
from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.evaluator import RecordedEvaluator
from autoquant.planner.measurement import Measured, Trial
from autoquant.planner.parameters import (
    number_of_candidates,
    parameters_of,
    unquantized,
)
from autoquant.planner.progress import Progress
from autoquant.planner.pruning import Bound
from autoquant.planner.search import search
from autoquant.planner.search_result import SearchResult
from autoquant.planner.search_settings import SearchSettings
from autoquant.planner.selection import choose, is_feasible, objective_value
from autoquant.search_spaces.scheme import Choice
from autoquant.search_spaces.space import ComponentSpace, SearchSpace
from tests.planner.measurements import measured

BITS = {"none": 16, "fake:int8": 8, "fake:int4": 4, "fake:int2": 2}
SPACE = SearchSpace(
    components={
        name: ComponentSpace(
            schemes=tuple(BITS), exclusions=((), ("proj_out",)), fuse_qkv=(False, True)
        )
        for name in ("transformer", "text_encoder")
    },
    struck=(),
)


def every_candidate() -> list[Candidate]:
    choices = [
        Choice(scheme=scheme, exclusions=exclusions, fuse_qkv=fused)
        for scheme in BITS
        for exclusions in (((), ("proj_out",)) if scheme != "none" else ((),))
        for fused in (False, True)
    ]
    return [
        Candidate(components={"transformer": transformer, "text_encoder": encoder})
        for transformer, encoder in itertools.product(choices, choices)
    ]


def additive(candidate: Candidate) -> Measured:
    """Memory and loss add up; leaving out proj_out costs memory and saves half of the loss."""
    held: dict[str, float] = {}
    loss = 0.0
    for weight, (name, choice) in zip((4.0, 1.0), candidate.components.items(), strict=True):
        held[name] = weight * BITS[choice.scheme] / 16 + 0.1 * len(choice.exclusions)
        damage = {16: 0.0, 8: 0.01, 4: 0.1, 2: 0.6}[BITS[choice.scheme]]
        loss += weight * damage * (0.5 if choice.exclusions else 1.0)
    fused = sum(choice.fuse_qkv for choice in candidate.components.values())
    return measured(
        loss=loss,
        peak_gb=sum(held.values()),
        weights_gb=0.9 * sum(held.values()),
        component_gb={name: 0.9 * size for name, size in held.items()},
        latency_s=2.0 - 0.1 * fused,
    )


TABLE = {candidate.key: additive(candidate) for candidate in every_candidate()}


def run(
    budget: Budget, trials: int = 60, seed: int = 0, bound: Bound | None = None
) -> SearchResult:
    settings = SearchSettings(trials=trials, seed=seed)
    return search(RecordedEvaluator(TABLE), SPACE, budget, settings, bound=bound)


def half_a_gb_less(candidate: Candidate, trials: Collection[Trial]) -> float:
    """A bound that is right and leaves some doubt."""
    return TABLE[candidate.key].peak_gb - 0.5


def test_the_space_holds_what_its_choices_multiply_to() -> None:
    assert number_of_candidates(SPACE) == len(TABLE) == 14**2


def test_parameters_leave_out_exclusions_where_nothing_is_quantized() -> None:
    assert parameters_of(unquantized(SPACE, Runtime()), SPACE) == {
        "transformer.scheme": "none",
        "transformer.fuse_qkv": False,
        "text_encoder.scheme": "none",
        "text_encoder.fuse_qkv": False,
    }


def test_the_same_seed_and_measurements_give_the_same_trials() -> None:
    budget = Budget.of(vram_gb=2)
    assert run(budget).trials == run(budget).trials


@pytest.mark.parametrize("vram_gb", [6, 2.9, 1.6, 1.3])
def test_a_fifth_of_the_space_comes_near_the_exhaustive_best(vram_gb: float) -> None:
    budget = Budget.of(vram_gb=vram_gb)
    best = min(m.loss for m in TABLE.values() if m.peak_gb <= vram_gb)
    chosen = choose(run(budget, trials=len(TABLE) // 5).trials, budget).chosen
    assert chosen.measured is not None
    assert chosen.measured.peak_gb <= vram_gb
    assert chosen.measured.loss <= best + 0.05


def test_no_candidate_is_measured_twice_and_a_small_space_ends_the_search() -> None:
    result = run(Budget.of(vram_gb=2), trials=10_000)
    keys = [trial.candidate.key for trial in result.trials]
    assert len(keys) == len(set(keys)) <= len(TABLE)


def test_a_candidate_that_cannot_be_measured_is_a_failed_trial_with_its_reason() -> None:
    only_unquantized = unquantized(SPACE, Runtime())
    evaluator = RecordedEvaluator({only_unquantized.key: TABLE[only_unquantized.key]})
    result = search(evaluator, SPACE, Budget.of(vram_gb=2), SearchSettings(trials=3))
    assert result.trials[0].failure is None
    assert "No measurement is recorded" in str(result.trials[1].failure)
    assert choose(result.trials, Budget.of(vram_gb=9)).chosen.number == 0


def test_an_interrupt_keeps_the_trials_so_far() -> None:
    def interrupt_after_three(progress: Progress) -> None:
        if progress.done == 3:
            raise KeyboardInterrupt

    result = search(
        RecordedEvaluator(TABLE),
        SPACE,
        Budget.of(vram_gb=2),
        SearchSettings(trials=20),
        on_progress=interrupt_after_three,
    )
    assert result.interrupted
    assert len(result.trials) == 3


def test_the_time_limit_stops_the_search() -> None:
    result = search(
        RecordedEvaluator(TABLE),
        SPACE,
        Budget.of(vram_gb=2),
        SearchSettings(trials=1000, time_limit_s=1e-9),
    )
    assert result.trials == ()


@pytest.mark.parametrize("settings", [{"trials": 0}, {"time_limit_s": 0.0}])
def test_settings_that_allow_nothing_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match="must be"):
        SearchSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("vram_gb", [1.9, 1.6, 1.05])
def test_what_cannot_fit_is_not_measured_and_listed_with_its_bound(vram_gb: float) -> None:
    result = run(Budget.of(vram_gb=vram_gb), trials=25, bound=half_a_gb_less)
    assert result.trials[0].candidate.is_reference
    assert result.trials[0].measured is not None
    assert all(half_a_gb_less(trial.candidate, ()) <= vram_gb for trial in result.trials[1:])
    assert result.pruned
    for trial in result.pruned:
        assert trial.measured is trial.failure is None
        assert trial.bound_gb == half_a_gb_less(trial.candidate, ()) > vram_gb


@pytest.mark.parametrize("vram_gb", [2.9, 1.6, 1.05])
def test_pruning_finds_what_is_found_without_it(vram_gb: float) -> None:
    budget = Budget.of(vram_gb=vram_gb)
    chosen = [
        choose(run(budget, trials=20, bound=bound).trials, budget).chosen.measured
        for bound in (half_a_gb_less, None)
    ]
    assert chosen[0]
    assert chosen[1]
    assert chosen[0].loss <= chosen[1].loss


def test_without_a_budget_or_a_bound_nothing_is_pruned() -> None:
    assert not run(Budget.of(latency_s=9), trials=5, bound=half_a_gb_less).pruned
    assert not run(Budget.of(vram_gb=0.5), trials=5).pruned
    unknown = run(Budget.of(vram_gb=0.5), trials=5, bound=lambda *_: None)
    assert not unknown.pruned
    assert len(unknown.trials) == 5


def test_a_bound_that_a_measurement_disproves_prunes_no_longer() -> None:
    def far_too_high(candidate: Candidate, trials: Collection[Trial]) -> float:
        return 99.0 if len(trials) < 3 else 0.0

    result = run(Budget.of(vram_gb=2), trials=12, bound=far_too_high)
    assert len(result.trials) < 3  # nothing but the reference was ever allowed
    assert result.pruned

    def too_high_at_first(candidate: Candidate, trials: Collection[Trial]) -> float:
        quantized = candidate.components["transformer"].scheme != "none"
        return 99.0 if quantized and len(trials) < 2 else 0.0

    result = run(Budget.of(vram_gb=4.6), trials=40, bound=too_high_at_first)
    assert not result.pruned
    assert any(t.candidate.components["transformer"].scheme != "none" for t in result.trials)


def test_where_nothing_can_fit_only_the_reference_and_what_needs_least_are_measured() -> None:
    budget = Budget.of(vram_gb=0.001)
    result = run(budget, trials=40, bound=half_a_gb_less)
    reference, least = result.trials
    assert reference.candidate.is_reference
    assert least.measured is not None
    peak = least.measured.peak_gb
    assert all(peak <= (half_a_gb_less(t.candidate, ()) or 0) + 0.5 for t in result.pruned)
    with pytest.raises(InfeasibleBudget, match=f"{peak:.2f} GB would be enough for .* ruled out"):
        choose(result.trials, budget, result.pruned)


@pytest.mark.parametrize("objective", ["latency", "vram"])
def test_another_objective_comes_near_the_exhaustive_best(objective: str) -> None:
    budget = Budget.of(vram_gb=4, max_loss=0.3, objective=objective)
    possible = [m for m in TABLE.values() if is_feasible(m, budget)]
    best = min(objective_value(m, budget) for m in possible)
    trials = run(budget, trials=len(TABLE) // 5).trials
    chosen = choose(trials, budget).chosen.measured
    assert chosen is not None
    assert chosen.loss <= 0.3
    assert objective_value(chosen, budget) <= 1.1 * best
