"""Plans whose components hold layers of different precisions, in the hands of every target."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from diffusers.quantizers.auto import DiffusersAutoQuantizer
from transformers.quantizers.auto import AutoQuantizationConfig

from autoquant.errors import InputError, PlanFormatError
from autoquant.planner.checkpoint.reload import component_bytes, first_batch
from autoquant.planner.emit.base import Verdict, verdict_on
from autoquant.planner.emit.diffusers_config import JSON_NAME, PYTHON_NAME
from autoquant.planner.emit.layout import Layout, read_layout
from autoquant.planner.emit.loader_script import loader_script
from autoquant.planner.emit.registry import emitters
from autoquant.planner.measurement import GIB
from autoquant.planner.plan import Plan, PlannedComponent
from autoquant.search_spaces.backends import backend
from autoquant.search_spaces.scheme import Override, Scheme
from tests.in_process import Script
from tests.planner.emit.conftest import PlanFor
from tests.planner.emit.test_diffusers_config import emitted_pipeline, image, modules

FIRST_Q = "transformer_blocks.0.attn.to_q"


def mixed(base: str, raised: str, *layers: str, **more: object) -> PlannedComponent:
    entries = {"scheme": base, "overrides": [{"scheme": raised, "layers": layers}], **more}
    return PlannedComponent.model_validate(entries)


def stored(pipeline: object, plan: Plan) -> dict[str, dict[str, str | None]]:
    """What each planned layer really is."""
    layout = read_layout(plan)
    owner = {n: backend(Scheme.parse(p.scheme).backend) for n, p in plan.components.items()}
    return {
        name: {
            path: owner[name].stored_precision(modules(pipeline)[name].get_submodule(path))  # type: ignore[attr-defined]
            for path in layout.components[name].quantized
        }
        for name in plan.components
    }


@pytest.mark.parametrize(
    ("base", "raised"), [("torchao:float8wo", "torchao:int8wo"), ("sdnq:uint4", "sdnq:int8")]
)
def test_what_diffusers_loads_is_what_was_measured(
    base: str, raised: str, plan_for: PlanFor, tmp_path: Path
) -> None:
    plan = plan_for(
        transformer=mixed(base, raised, "proj_out", "transformer_blocks.0", exclusions=(FIRST_Q,)),
        text_encoder_2=mixed(base, raised, "encoder.block.0"),
        text_encoder=mixed(base, raised, "encoder.layers.0.self_attn"),
    )
    ours, theirs = plan.load(device="cpu"), emitted_pipeline(plan, tmp_path / "out")
    assert stored(theirs, plan) == stored(ours, plan)
    assert {len(set(layers.values())) for layers in stored(ours, plan).values()} == {2}
    assert component_bytes(theirs) == component_bytes(ours)
    np.testing.assert_array_equal(image(theirs, plan), image(ours, plan))
    entries = json.loads((tmp_path / "out" / JSON_NAME).read_text())
    built = runpy.run_path(str(tmp_path / "out" / PYTHON_NAME))["quantization_config"]()
    for name, library in entries["libraries"].items():
        known = DiffusersAutoQuantizer if library == "diffusers" else AutoQuantizationConfig
        again = known.from_dict(entries["quant_mapping"][name])
        assert again.to_dict() == built.quant_mapping[name].to_dict()


def test_the_script_quantizes_layer_by_layer_as_planned(
    plan_for: PlanFor, tmp_path: Path, run_script: Script
) -> None:
    plan = plan_for(
        transformer=mixed(
            *("quanto:float8", "quanto:int8", "proj_out", FIRST_Q),
            exclusions=("x_embedder",),
            fuse_qkv=True,
        ),
        text_encoder_2=mixed("bitsandbytes:nf4", "bitsandbytes:int8", "encoder.block.0.layer.0"),
    )
    assert plan.emit("diffusers", tmp_path / "out", force=True).verdict == Verdict()
    said = run_script(tmp_path / "out" / "load_pipeline.py")
    ours = plan.load(device="cpu")
    weights_gb = float(said.split("weights: ")[1].split()[0])
    assert weights_gb == round(sum(component_bytes(ours).values()) / GIB, 6)
    drawn = runpy.run_path(str(tmp_path / "out/load_pipeline.py"))["load_pipeline"](device="cpu")
    drawn.set_progress_bar_config(disable=True)
    np.testing.assert_array_equal(
        first_batch(drawn, plan.workload), first_batch(ours, plan.workload)
    )


def test_a_script_is_not_written_without_knowing_the_layers(plan_for: PlanFor) -> None:
    plan = plan_for(transformer=mixed("torchao:float8wo", "torchao:int8wo", "proj_out"))
    classes = {"transformer": ("diffusers", "FluxTransformer2DModel")}
    with pytest.raises(PlanFormatError, match="which layers of transformer"):
        loader_script(plan, "x", classes, {})


TAKERS = {
    "torchao:float8wo": {"diffusers", "diffusers-config"},
    "sdnq:int4": {"diffusers", "diffusers-config"},
    "quanto:int4": {"diffusers"},
    "gguf:Q4_0": {"diffusers", "comfyui"},
}


@pytest.mark.parametrize("base", TAKERS)
def test_no_target_takes_the_first_precision_for_all(base: str, plan_for: PlanFor) -> None:
    raised = {"gguf": "gguf:Q8_0"}.get(base.partition(":")[0], f"{base.partition(':')[0]}:int8")
    raised = raised.replace("torchao:int8", "torchao:int8wo")
    plan = plan_for(transformer=mixed(base, raised, "proj_out"))
    layout = read_layout(plan)
    for name, emitter in emitters().items():
        verdict = verdict_on(plan, layout, emitter)
        assert (verdict.impossible is None) == (name in TAKERS[base]), name
        if verdict.impossible is not None:
            assert "transformer: " in verdict.impossible
            assert raised in verdict.impossible or f"{base} is no" in verdict.impossible


def test_a_mixed_text_encoder_is_left_alone_with_the_reason(plan_for: PlanFor) -> None:
    plan = plan_for(
        transformer="torchao:int8wo",
        text_encoder_2=mixed("torchao:float8wo", "torchao:int8wo", "encoder.block.0"),
    )
    lost = verdict_on(plan, read_layout(plan), emitters()["cache-dit"]).lost
    assert "text_encoder_2 stays unquantized" in lost[0]
    assert "the plan gives some layers torchao:int8wo instead of torchao:float8wo" in lost[0]


def test_a_target_that_never_heard_of_it_is_not_asked(plan_for: PlanFor, tmp_path: Path) -> None:
    class Elsewhere:
        name = "elsewhere"
        summary = "an emitter of another package"

        def carries(self, plan: Plan, layout: Layout) -> Verdict:
            return Verdict()

        def files(self, plan: Plan, layout: Layout) -> dict[str, str]:
            return {}

        def next_step(self, files: object) -> str:
            return ""

    plan = plan_for(transformer=mixed("torchao:float8wo", "torchao:int8wo", "proj_out"))
    verdict = verdict_on(plan, Layout(""), Elsewhere())
    assert "elsewhere does not look at layers" in str(verdict.impossible)
    with pytest.raises(InputError, match="cannot carry this plan: transformer: the tool has one"):
        plan.emit("cache-dit", tmp_path / "out", force=True)


def test_old_plans_are_written_as_before_and_paths_are_checked(plan_for: PlanFor) -> None:
    assert "overrides" not in plan_for(transformer="torchao:int8wo").to_json()
    plan = plan_for(transformer=mixed("torchao:float8wo", "torchao:int8wo", "proj_out"))
    assert Plan.from_json(plan.to_json()) == plan
    assert plan.components["transformer"].choice.overrides == (
        Override(scheme="torchao:int8wo", layers=("proj_out",)),
    )
    hostile = plan.to_json().replace('"proj_out"', '"../proj_out"')
    with pytest.raises(PlanFormatError, match="is no module path inside transformer"):
        Plan.from_json(hostile)
    foreign = plan.to_json().replace("torchao:int8wo", "sdnq:int8")
    with pytest.raises(PlanFormatError, match="is of another backend than torchao:float8wo"):
        Plan.from_json(foreign)
