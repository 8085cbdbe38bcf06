from __future__ import annotations

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
    weights = sum(SIZES[name] * SHARE[c.scheme] for name, c in what.components.items())
    loss = sum(LOSS[c.scheme] / (1 + len(c.exclusions)) for c in what.components.values())
    figures = measured(
        loss=loss, weights_gb=weights, peak_gb=weights + ACTIVATIONS_GB, component_gb=SIZES
    )
    return Trial(number=number, candidate=what, measured=figures)


def proposals(budget: Budget, most: int = 50) -> list[Candidate]:
    decomposition = Decomposition(SPACE, Runtime(), budget)
    finished: dict[str, Trial] = {}
    while len(finished) < most:
        proposed = decomposition.propose(finished)
        if proposed is None:
            break
        assert proposed.key not in finished
        finished[proposed.key] = answer(len(finished), proposed)
    return [trial.candidate for trial in finished.values()]


def pair(transformer: str, text_encoder: str) -> Candidate:
    both = candidate(transformer, text_encoder).components
    return Candidate(components={name: both[name] for name in SPACE.components})


def test_the_ladder_comes_first_and_then_each_component_alone_the_largest_first() -> None:
    assert proposals(Budget.of(vram_gb=100))[:7] == [
        pair("none", "none"),
        pair("fake:int8", "fake:int8"),
        pair("fake:int4", "fake:int4"),
        pair("fake:int8", "none"),
        pair("fake:int4", "none"),
        pair("none", "fake:int8"),
        pair("none", "fake:int4"),
    ]


def test_then_comes_the_whole_that_the_parts_promise() -> None:
    # 4 * 0.25 + 1 * 0.5 + 0.5 = 2 GB: the only mixture that fits and beats int4 everywhere.
    assert proposals(Budget.of(vram_gb=2.2))[7] == pair("fake:int4", "fake:int8")


def test_around_the_best_one_its_sensitive_layers_are_left_out() -> None:
    after = proposals(Budget.of(vram_gb=2.2))[8]
    assert after.components["transformer"] == Choice(scheme="fake:int4", exclusions=("proj_out",))
    assert after.components["text_encoder"] == Choice(scheme="fake:int8")


def test_where_nothing_can_be_better_nothing_is_proposed() -> None:
    assert len(proposals(Budget.of(vram_gb=100))) == 7


def test_of_each_width_one_scheme_opens_and_the_smaller_components_try_one_first() -> None:
    schemes = ("none", "one:int8", "two:float8", "one:nf4", "two:int4")
    space = SearchSpace(
        components={name: ComponentSpace(schemes=schemes) for name in SPACE.components}
    )
    decomposition = Decomposition(space, Runtime(), Budget.of(vram_gb=100))
    finished: dict[str, Trial] = {}
    proposed = []
    while (candidate := decomposition.propose(finished)) is not None:
        number = len(finished)
        figures = measured(loss=min(1, number), peak_gb=5.0, component_gb=SIZES)
        finished[candidate.key] = Trial(number=number, candidate=candidate, measured=figures)
        proposed.append(tuple(candidate.components[n].scheme for n in SIZES))
    assert proposed == [
        ("none", "none"),
        ("one:int8", "one:int8"),
        ("one:nf4", "one:nf4"),
        *((scheme, "none") for scheme in schemes[1:]),
        ("none", "one:int8"),
        ("none", "one:nf4"),
        ("none", "two:float8"),
        ("none", "two:int4"),
    ]
