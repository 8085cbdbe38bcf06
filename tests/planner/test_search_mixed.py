"""A search that finds layers worth a wider precision, on a component whose every choice is known.

Bits of each layer and the damage that they do are written down, so the best choice is known too.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from autoquant.planner.axes import axes_of, positions_of
from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.evaluator import Evaluator
from autoquant.planner.forecast import Forecast, Predictor
from autoquant.planner.layer_study import LayerStudy
from autoquant.planner.measurement import Comparison, Estimate, Measured, Trial
from autoquant.planner.parameters import (
    choices,
    is_in_space,
    neighbours,
    number_of_candidates,
    unquantized,
)
from autoquant.planner.priors import Priors
from autoquant.planner.racing import Race
from autoquant.planner.reasons import reason
from autoquant.planner.search import search
from autoquant.planner.search_settings import SearchSettings
from autoquant.planner.selection import choose
from autoquant.planner.sensitivity import extended_space
from autoquant.planner.workload import Workload
from autoquant.search_spaces.exclusions import without_excluded
from autoquant.search_spaces.layer_groups import LayerGroup
from autoquant.search_spaces.levers import LeverConflict, LeverSpace
from autoquant.search_spaces.scheme import Choice, Override
from autoquant.search_spaces.space import ComponentSpace, SearchSpace
from tests.planner.measurements import measured

NF4, INT8 = "bitsandbytes:nf4", "bitsandbytes:int8"
BITS = {"none": 16, INT8: 8, NF4: 4}
GIB_OF = {"blocks.0.attn.to_q": 4.0, "blocks.0.ff.up": 4.0, "proj_out": 0.5}
DAMAGE = {"blocks.0.attn.to_q": 0.2, "blocks.0.ff.up": 0.01, "proj_out": 0.05}
WEIGHTS = {path: int(gib * 2**30 / 2) for path, gib in GIB_OF.items()}
WORKLOAD = Workload(prompts=("a", "b", "c", "d", "e"), height=64, width=64, steps=20)
SPACE = SearchSpace(
    components={
        "transformer": ComponentSpace(schemes=tuple(BITS)),
        "text_encoder": ComponentSpace(schemes=tuple(BITS), exclusions=((), ("head",))),
    }
)
BUDGET = Budget(vram_gb=4.0)


def scheme_of(path: str, choice: Choice) -> str:
    excluded = not without_excluded([path], choice.exclusions)
    return "none" if excluded else choice.scheme_at(path)


class Model(Evaluator):
    """Holds what its layers hold, and loses what they lose."""

    def __init__(self) -> None:
        self.measured: list[Candidate] = []
        self.compared: list[Candidate] = []

    def figures(self, candidate: Candidate) -> tuple[float, float]:
        schemes = {path: scheme_of(path, candidate.components["transformer"]) for path in GIB_OF}
        held = sum(GIB_OF[path] * BITS[scheme] / 16 for path, scheme in schemes.items())
        share = {"none": 0.0, INT8: 0.1, NF4: 1.0}
        losses = (DAMAGE[path] * share[scheme] for path, scheme in schemes.items())
        encoder = candidate.components.get("text_encoder", Choice())
        return held, math.hypot(*losses, 0.02 * share[encoder.scheme])

    def measure(self, candidate: Candidate, race: Race | None = None) -> Measured:
        self.measured.append(candidate)
        held, loss = self.figures(candidate)
        return measured(
            loss=loss, peak_gb=held + 0.5, component_gb={"transformer": held, "text_encoder": 0.1}
        )

    def compare(
        self, candidate: Candidate, workload: Workload, *, timed: bool = True
    ) -> Comparison:
        self.compared.append(candidate)
        held, loss = self.figures(candidate)
        return Comparison(
            component_gb={"transformer": held}, loss=loss, fidelity={}, metric="flip", noise_floor=0
        )


def with_transformer(choice: Choice) -> Candidate:
    return Candidate(components={"transformer": choice, "text_encoder": Choice()})


def layer_study(model: Model) -> LayerStudy:
    groups = [
        LayerGroup(name=name, layers=(path,), weights=WEIGHTS[path], schemes=(NF4, INT8))
        for name, path in zip(
            ("attention", "feed-forward", "final projection"), GIB_OF, strict=True
        )
    ]
    nothing = unquantized(SPACE, Runtime())
    reference = model.measure(nothing)
    return LayerStudy(model, {"transformer": groups}, WORKLOAD, nothing, reference)


def raised(*layers: str) -> Choice:
    return Choice(scheme=NF4, overrides=(Override(scheme=INT8, layers=layers),))


def test_the_layers_that_hurt_get_the_next_wider_precision_where_it_is_best() -> None:
    model = Model()
    result = search(model, SPACE, BUDGET, SearchSettings(trials=20), layers=layer_study(model))
    chosen = choose(result.trials, BUDGET).chosen
    # Leaving attention out takes 5.6 GiB and int8 everywhere 4.8; what is chosen takes 3.9.
    assert chosen.candidate.components["transformer"] == raised("blocks.0.attn", "proj_out")
    [found] = result.sensitivity
    assert found.raised == INT8
    reference = result.trials[0].measured
    assert reference is not None
    why = reason("transformer", chosen, reference, result.trials, BUDGET, result.sensitivity)
    assert "; final projection, attention in bitsandbytes:int8: of all groups, these lose" in why
    assert chosen.candidate.label == (
        "transformer bitsandbytes:nf4 (blocks.0.attn, proj_out in int8)"
    )


def test_it_was_expected_before_it_was_measured() -> None:
    model = Model()
    result = search(model, SPACE, BUDGET, SearchSettings(trials=20), layers=layer_study(model))
    trial = next(t for t in result.trials if t.candidate.components["transformer"].overrides)
    assert trial.predicted is not None
    assert trial.measured is not None
    assert trial.predicted.peak_gb == pytest.approx(trial.measured.peak_gb, rel=0.03)
    # Three groups were drawn alone, and the best was the first that was tried after that.
    assert len(model.compared) == 3
    assert trial.candidate.components["transformer"] == raised("blocks.0.attn", "proj_out")


def test_the_space_grows_by_one_choice_a_set() -> None:
    model = Model()
    study = layer_study(model)
    best = with_transformer(Choice(scheme=NF4))
    [found] = study.look(best, 0.2, lambda name, choice: 0.2, 100, lambda: False)
    extended = extended_space(SPACE, found)
    component = extended.components["transformer"]
    assert component.mixed == (raised("proj_out"), raised("blocks.0.attn", "proj_out"))
    assert number_of_candidates(SPACE) == 3 * 5
    assert number_of_candidates(extended) == (3 + 2 + 2) * 5
    assert extended_space(extended, found) == extended
    estimates = {estimate.choice: estimate for estimate in found.estimates(0.2, 0.02)}
    assert set(estimates) == set(choices(component)) - set(choices(SPACE.components["transformer"]))
    for choice, estimate in estimates.items():
        held, loss = model.figures(with_transformer(choice))
        assert estimate.component_gb == pytest.approx(held)
        assert estimate.loss == pytest.approx(loss, rel=0.05)


def test_what_can_be_chosen_can_be_asked_of_optuna_and_walked_to() -> None:
    space = SPACE.model_copy(
        update={
            "components": {
                "transformer": ComponentSpace(
                    schemes=tuple(BITS),
                    exclusions=((), ("proj_out",)),
                    fuse_qkv=(False, True),
                    mixed=(raised("proj_out"), raised("blocks.0.attn")),
                )
            }
        }
    )
    every = [
        Candidate(components={"transformer": choice})
        for choice in choices(space.components["transformer"])
    ]
    assert len(every) == number_of_candidates(space) == 2 + 2 * 2 * 2 + 2 * 2
    assert all(is_in_space(candidate, space) for candidate in every)
    nothing = unquantized(space, Runtime())
    around = {candidate.key for candidate in neighbours(nothing, space)}
    assert around == {candidate.key for candidate in every if candidate != nothing}
    strange = Candidate(components={"transformer": raised("blocks.0.ff")})
    assert not is_in_space(strange, space)


def test_what_forbids_one_of_the_precisions_forbids_the_choice() -> None:
    component = ComponentSpace(schemes=("none", NF4), mixed=(raised("proj_out"),))
    conflict = LeverConflict(
        component="transformer", scheme=INT8, lever="offload", value="model", reason="it breaks"
    )
    space = SearchSpace(
        components={"transformer": component},
        levers=LeverSpace(offload=("none", "model")),
        conflicts=(conflict,),
    )
    assert component.every_scheme == ("none", NF4, INT8)
    assert number_of_candidates(space) == 2 * 3 - 1


def test_no_wider_precision_is_offered_where_none_is_open() -> None:
    model = Model()
    study = layer_study(model)
    best = with_transformer(Choice(scheme=INT8))
    [found] = study.look(best, 0.2, lambda name, choice: 0.2, 100, lambda: False)
    assert found.raised is None
    assert found.raised_choices() == ()


def test_an_estimate_counts_as_far_as_it_may_be_off() -> None:
    axes = axes_of(SPACE, Runtime())
    nothing = unquantized(SPACE, Runtime())
    reference = Model().measure(nothing)
    trials = [Trial(number=0, candidate=nothing, measured=reference)]
    place = axes[0].position[Choice(scheme=NF4)]
    rows = np.array([[place, 0, 0]])

    def forecast(gb_sd: float, log_loss_sd: float) -> Forecast:
        sure = Estimate(
            component="transformer",
            choice=Choice(scheme=NF4),
            component_gb=2.0,
            component_gb_sd=gb_sd,
            loss=0.2,
            log_loss_sd=log_loss_sd,
        )
        return Predictor(Priors(axes), reference, trials, [sure]).forecast(positions_of(rows))

    sure, unsure = forecast(0.0, 0.1), forecast(0.4, 0.8)
    assert unsure.peak_gb_sd[0] > 1.1 * sure.peak_gb_sd[0]
    assert unsure.log_loss_sd[0] > 2 * sure.log_loss_sd[0]
