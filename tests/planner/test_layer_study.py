"""Look inside the demo's transformer for real."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from diffusers import DiffusionPipeline

from autoquant import Plan, autoquant, demo
from autoquant.planner.layer_study import LayerStudy, screening_workload
from autoquant.planner.parameters import unquantized
from autoquant.planner.preparation import prepare
from autoquant.planner.request import Preparation, Request
from autoquant.planner.sensitivity import Sensitivity
from autoquant.planner.workload import UNSEEN_PROMPTS, Workload, WorkloadRequest
from autoquant.search_spaces.scheme import Choice

NF4, INT8 = "bitsandbytes:nf4", "bitsandbytes:int8"
FEW = WorkloadRequest(prompts=tuple(demo.WORKLOAD["prompts"][:2]), steps=2)


def study(tmp_path: Path) -> tuple[LayerStudy, Preparation]:
    request = Request(
        pipeline="demo", workload=FEW, metric="flip", backends=(NF4, INT8), download=False
    )
    prepared, evaluator = prepare(request, tmp_path)
    nothing = unquantized(prepared.space, prepared.runtime)
    reference = prepared.reference.measured
    groups = prepared.layer_groups
    return LayerStudy(evaluator, groups, prepared.workload, nothing, reference), prepared


def test_keeping_the_final_projection_comes_out_of_the_measurement(tmp_path: Path) -> None:
    layers, prepared = study(tmp_path)
    nothing = unquantized(prepared.space, prepared.runtime)
    both = {**nothing.components, "transformer": Choice(scheme=NF4)}
    best = nothing.model_copy(update={"components": both})

    def look(trials_left: int = 100, *, late: bool = False) -> list[Sensitivity]:
        return layers.look(best, 0.04, lambda name, choice: 0.04, trials_left, lambda: late)

    assert look(late=True) == look(trials_left=2) == []
    (found,) = look()
    assert found.groups[0].group == "final projection"
    assert found.kept_sets()[0] == ("proj_out",)
    assert found.raised == INT8
    assert all(
        choice.exclusions == ("proj_out",) and {it.scheme for it in choice.overrides} == {INT8}
        for choice in found.raised_choices()
    )
    assert found.raised_choices()
    assert {group.group for group in found.groups} == {
        "embedders",
        "modulation",
        "attention",
        "feed-forward",
        "final projection",
    }
    assert all(group.loss is not None and group.saved_gb > 0 for group in found.groups)
    assert look() == []


def test_a_screen_is_a_small_version_of_the_workload() -> None:
    prompts = tuple(f"prompt {number}" for number in range(9))
    full = Workload(prompts=prompts, seeds=(0, 1), height=64, width=64, steps=28, batch_size=8)
    small = screening_workload(full)
    assert (small.prompts, small.seeds, small.steps) == (prompts[:4], (0,), 14)
    assert small.batch_size == 4
    assert screening_workload(full.model_copy(update={"steps": 4})).steps == 4


def test_a_budget_between_two_widths_is_filled_with_the_layers_that_matter(
    demo_pipeline: DiffusionPipeline,
) -> None:
    # nf4 everywhere takes 4.3 MB and nothing quantized 10 MB.
    plan = autoquant(
        demo_pipeline,
        vram_gb=0.0052,
        workload=replace(
            FEW,
            height=64,
            width=64,
            call_arguments={"max_sequence_length": demo.WORKLOAD["max_sequence_length"]},
        ),
        metric="flip",
        backends=[NF4],
        download=False,
        trials=14,
        cache=False,
    )
    assert plan.sensitivity[0].component == "transformer"
    transformer = plan.components["transformer"]
    assert transformer.scheme == NF4
    assert "proj_out" in transformer.exclusions
    assert plan.measured.peak_gb <= 0.0052
    table = str(plan)
    assert "Which layers of the transformer hurt: bitsandbytes:nf4" in table
    assert re.search(r"kept .* final projection \(1 layers?\)", table)
    assert plan.confirmation is not None
    assert plan.confirmation.prompts == UNSEEN_PROMPTS[:2]
    assert plan.confirmation.sentence in " ".join(table.split())
    assert Plan.from_json(plan.to_json()) == plan
