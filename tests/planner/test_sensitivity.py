from __future__ import annotations

import pytest

from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Runtime
from autoquant.planner.decomposition import Decomposition
from autoquant.planner.parameters import unquantized
from autoquant.planner.sensitivity import (
    GroupLoss,
    Sensitivity,
    extended_space,
    most_harmful_first,
)
from autoquant.search_spaces.scheme import Choice, Override
from autoquant.search_spaces.space import ComponentSpace, SearchSpace
from tests.planner.measurements import trial

ATTENTION = GroupLoss(
    group="attention", layers=("b.0.q", "b.1.q"), weights=20, saved_gb=2.0, loss=0.03
)
FEED_FORWARD = GroupLoss(
    group="feed-forward", layers=("b.0.ff", "b.1.ff"), weights=40, saved_gb=4.0, loss=0.04
)
FINAL = GroupLoss(
    group="final projection", layers=("proj_out",), weights=1, saved_gb=0.1, loss=0.01
)
BROKEN = GroupLoss(group="embedders", layers=("embed",), weights=1, failure="is not finite")


def sensitivity(*groups: GroupLoss) -> Sensitivity:
    return Sensitivity(
        component="transformer",
        scheme="fake:int4",
        prompts=4,
        steps=8,
        metric="flip",
        component_gb=10.0,
        groups=most_harmful_first(groups),
    )


def test_what_harms_most_a_byte_is_kept_first_and_what_breaks_before_it() -> None:
    found = sensitivity(ATTENTION, FEED_FORWARD, FINAL, BROKEN)
    assert [g.group for g in found.groups] == [
        "embedders",
        "final projection",
        "attention",
        "feed-forward",
    ]


def test_the_sets_are_nested_and_leave_something_to_quantize() -> None:
    assert sensitivity(ATTENTION, FEED_FORWARD, FINAL).kept_sets() == (
        ("proj_out",),
        ("b.0.q", "b.1.q", "proj_out"),
    )


def test_estimates_are_scaled_to_the_component_measured_whole() -> None:
    (estimate,) = sensitivity(ATTENTION, FEED_FORWARD).estimates(whole_loss=0.1)
    assert estimate.choice == Choice(scheme="fake:int4", exclusions=("b.0.q", "b.1.q"))
    # Losses .03 and .04 combine to .05, and the whole has .1.
    assert estimate.loss == pytest.approx(0.08)
    assert estimate.component_gb == pytest.approx(6.0)


def test_groups_without_any_loss_promise_nothing() -> None:
    harmless = FEED_FORWARD.model_copy(update={"loss": 0.0})
    assert sensitivity(harmless, harmless).estimates(0.1) == ()


def test_the_space_holds_the_sets_for_the_scheme_that_was_measured_alone() -> None:
    space = SearchSpace(
        components={
            "transformer": ComponentSpace(
                schemes=("none", "fake:int4", "fake:int8"), exclusions=((), ("embed",))
            )
        }
    )
    extended = extended_space(space, sensitivity(ATTENTION, FEED_FORWARD, FINAL))
    component = extended.components["transformer"]
    new = (("proj_out",), ("b.0.q", "b.1.q", "proj_out"))
    assert component.exclusions == ((), ("embed",), *new)
    assert component.distinct_exclusions("fake:int4") == ((), ("embed",), *new)
    assert component.distinct_exclusions("fake:int4", measured=False) == ((), ("embed",))
    assert component.distinct_exclusions("fake:int8") == ((), ("embed",))
    assert extended_space(extended, sensitivity(ATTENTION, FEED_FORWARD, FINAL)) == extended


def raised(*groups: GroupLoss, component_gb: float = 10.0) -> Sensitivity:
    real = {"scheme": "bitsandbytes:nf4", "raised": "bitsandbytes:int8"}
    return sensitivity(*groups).model_copy(update={**real, "component_gb": component_gb})


def test_the_sets_are_tried_in_the_next_wider_precision_too() -> None:
    found = raised(ATTENTION, FEED_FORWARD)
    assert found.raised_choices() == (
        Choice(
            scheme="bitsandbytes:nf4",
            overrides=(Override(scheme="bitsandbytes:int8", layers=("b.0.q", "b.1.q")),),
        ),
    )
    assert found.raised_groups(found.raised_choices()[0]) == ("attention",)
    assert sensitivity(ATTENTION, FEED_FORWARD).raised_choices() == ()


def test_what_holds_next_to_nothing_is_left_out_and_the_rest_is_raised() -> None:
    found = raised(ATTENTION, FEED_FORWARD, FINAL, component_gb=20.0)
    [choice] = found.raised_choices()  # with the final projection alone there is none to raise
    assert choice.exclusions == ("proj_out",)
    assert choice.overrides[0].layers == ("b.0.q", "b.1.q")
    assert found.raised_groups(choice) == ("attention",)
    *_, estimate = found.estimates(whole_loss=0.1, raised_loss=0.01)
    assert estimate.choice == choice
    # Losses .03, .04 and .01 combine to .051; of attention's a tenth is left, of the last nothing.
    assert estimate.loss == pytest.approx(0.1 * (0.003**2 + 0.04**2) ** 0.5 / 0.0026**0.5)
    # All that can be saved but the final projection; attention's 20 weights weigh nothing.
    assert estimate.component_gb == pytest.approx(14.0)
    assert [it.choice.overrides for it in found.estimates(0.1, 0.01)].count(()) == 2


def test_two_schemes_that_say_to_keep_the_same_groups_both_may() -> None:
    found = sensitivity(ATTENTION, FEED_FORWARD, FINAL)
    other = found.model_copy(update={"scheme": "fake:int8"})
    # A set of the family that is no different from the empty one under the second scheme.
    component = ComponentSpace(
        schemes=("none", "fake:int4", "fake:int8"),
        exclusions=((), ("b.0.q", "b.1.q", "proj_out")),
        same_as={"fake:int8": (0, 0)},
    )
    space = SearchSpace(components={"transformer": component})
    decomposition = Decomposition(space, Runtime(), Budget.of(vram_gb=8))
    whole = {"transformer": 10.0}
    reference = trial(0, unquantized(space, Runtime()), peak_gb=12.0, component_gb=whole)
    for each in (found, other):
        space = extended_space(space, each)
        decomposition.extend(space, each.estimates(whole_loss=0.1))
        assert decomposition.propose({reference.candidate.key: reference}) is not None
    extended = space.components["transformer"]
    assert ("proj_out",) in extended.distinct_exclusions("fake:int4")
    assert extended.distinct_exclusions("fake:int8") == ((), ("proj_out",))
    assert extended.distinct_exclusions("fake:int4", measured=False) == component.exclusions
