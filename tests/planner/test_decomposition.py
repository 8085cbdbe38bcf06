from __future__ import annotations

import pytest
from threadpoolctl import threadpool_info

from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.decomposition import Decomposition
from autoquant.planner.measurement import Trial
from autoquant.search_spaces.scheme import Choice
from autoquant.search_spaces.space import ComponentSpace, SearchSpace
from tests.planner.measurements import candidate, measured

SIZES = {"transformer": 4.0, "text_encoder": 1.0}
ACTIVATIONS_GB = 0.5
LOSS = {"none": 0.0, "fake:int8": 0.01, "fake:int4": 0.1}
SHARE = {"none": 1.0, "fake:int8": 0.5, "fake:int4": 0.25}
SPACE = SearchSpace(
    components={
        name: ComponentSpace(schemes=tuple(LOSS), exclusions=((), ("proj_out",)))
        for name in ("text_encoder", "transformer")
    }
)


def answer(number: int, what: Candidate) -> Trial:
    """Losses add; a quarter of a component's weight stays where its sensitive layer does."""
    held = {
        name: SIZES[name] * (SHARE[c.scheme] + 0.1 * len(c.exclusions))
        for name, c in what.components.items()
    }
    loss = sum(
        SIZES[name] * LOSS[c.scheme] / (1 + len(c.exclusions))
        for name, c in what.components.items()
    )
    weights = sum(held.values())
    figures = measured(
        loss=loss, weights_gb=weights, peak_gb=weights + ACTIVATIONS_GB, component_gb=held
    )
    return Trial(number=number, candidate=what, measured=figures)


def proposals(budget: Budget, most: int = 50) -> list[Trial]:
    decomposition = Decomposition(SPACE, Runtime(), budget)
    finished: dict[str, Trial] = {}
    while len(finished) < most:
        proposed = decomposition.propose(finished)
        if proposed is None:
            assert decomposition.is_out_of_promises
            break
        assert proposed.key not in finished
        finished[proposed.key] = answer(len(finished), proposed)
    return list(finished.values())


def pair(transformer: Choice, text_encoder: Choice) -> Candidate:
    both = {"transformer": transformer, "text_encoder": text_encoder}
    return Candidate(components={name: both[name] for name in SPACE.components})


def test_where_the_unquantized_pipeline_fits_it_is_enough() -> None:
    (only,) = proposals(Budget.of(vram_gb=100))
    assert only.candidate.is_reference


@pytest.mark.parametrize(
    ("vram_gb", "transformer", "text_encoder"),
    [
        (4.0, Choice(scheme="fake:int8", exclusions=("proj_out",)), Choice()),
        (2.9, Choice(scheme="fake:int8"), Choice(scheme="fake:int4")),
        (1.9, Choice(scheme="fake:int4"), Choice(scheme="fake:int4", exclusions=("proj_out",))),
    ],
)
def test_the_best_whole_is_found_in_a_third_of_the_space(
    vram_gb: float, transformer: Choice, text_encoder: Choice
) -> None:
    trials = proposals(Budget.of(vram_gb=vram_gb))
    assert pair(transformer, text_encoder) in [trial.candidate for trial in trials]
    assert len(trials) <= 5**2 / 2


def test_what_cannot_fit_is_found_out_early() -> None:
    assert len(proposals(Budget.of(vram_gb=0.5))) <= 6


def test_an_option_that_only_failed_is_passed_over_for_one_that_may_run() -> None:
    decomposition = Decomposition(SPACE, Runtime(), Budget.of(vram_gb=3.2))
    finished = {}
    for _ in range(12):
        proposed = decomposition.propose(finished)
        if proposed is None:
            break
        trial = answer(len(finished), proposed)
        if proposed.components["transformer"].scheme == "fake:int8":
            trial = Trial(number=len(finished), candidate=proposed, failure="crashed")
        finished[proposed.key] = trial
    fitting = [t for t in finished.values() if t.measured is not None and t.measured.peak_gb <= 3.2]
    assert any(t.candidate.components["transformer"].scheme == "fake:int4" for t in fitting)


def test_a_scheme_that_fails_in_one_way_is_not_tried_in_every_other() -> None:
    decomposition = Decomposition(SPACE, Runtime(), Budget.of(vram_gb=2.4))
    finished: dict[str, Trial] = {}
    while (proposed := decomposition.propose(finished)) is not None:
        trial = answer(len(finished), proposed)
        if any(choice.scheme == "fake:int4" for choice in proposed.components.values()):
            trial = Trial(number=len(finished), candidate=proposed, failure="crashed")
        finished[proposed.key] = trial
    failed = [trial for trial in finished.values() if trial.failure is not None]
    assert len(failed) <= 5


def test_a_reference_that_was_loaded_elsewhere_says_nothing_of_loading() -> None:
    decomposition = Decomposition(SPACE, Runtime(), Budget.of(vram_gb=2.9, load_peak_gb=3))
    finished: dict[str, Trial] = {}
    while (proposed := decomposition.propose(finished)) is not None:
        trial = answer(len(finished), proposed)
        assert trial.measured is not None
        held = 0.0 if proposed.is_reference else trial.measured.weights_gb
        loaded = trial.measured.model_copy(update={"load_peak_gb": held})
        finished[proposed.key] = trial.model_copy(update={"measured": loaded})
    assert len(finished) < 5**2 / 2


def test_a_space_too_large_to_enumerate_loses_its_worst_options_first() -> None:
    schemes = ("none", *(f"fake{place}:int{2 + place % 7}" for place in range(60)))
    names = ("transformer", "text_encoder", "text_encoder_2")
    space = SearchSpace(components={name: ComponentSpace(schemes=schemes) for name in names})
    decomposition = Decomposition(space, Runtime(), Budget.of(vram_gb=4))
    reference = Candidate(components={name: Choice() for name in names})
    figures = measured(peak_gb=8.0, weights_gb=7.0, component_gb=dict.fromkeys(names, 7 / 3))
    proposed = decomposition.propose(
        {reference.key: Trial(number=0, candidate=reference, measured=figures)}
    )
    assert proposed is not None
    assert not proposed.is_reference


def test_planning_computes_in_one_thread_and_leaves_the_number_as_it_was() -> None:
    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    def may_fit(_: Candidate) -> bool:
        while_planning.append(threads())
        return True

    reference = pair(Choice(), Choice())
    before, while_planning = threads(), list[list[int]]()
    decomposition = Decomposition(SPACE, Runtime(), Budget.of(vram_gb=2.9))
    decomposition.propose({reference.key: answer(0, reference)}, may_fit)
    assert while_planning == [[1] * len(before)]
    assert threads() == before


def test_nothing_is_proposed_where_the_reference_failed() -> None:
    decomposition = Decomposition(SPACE, Runtime(), Budget.of(vram_gb=1))
    reference = pair(Choice(), Choice())
    failed = Trial(number=0, candidate=reference, failure="crashed")
    assert decomposition.propose({reference.key: failed}) is None
    assert not decomposition.is_out_of_promises
    assert candidate().is_reference
