"""The emitted config is loaded by diffusers and run, and compared with the plan's own pipeline."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.quantizers.auto import DiffusersAutoQuantizer
from transformers.quantizers.auto import AutoQuantizationConfig

from autoquant.errors import InputError
from autoquant.planner.drawing import draw
from autoquant.planner.emit.diffusers_config import JSON_NAME, PYTHON_NAME
from autoquant.planner.emit.layout import read_layout
from autoquant.planner.emit.load_time import TORCHAO_TYPES
from autoquant.planner.plan import Plan, PlannedComponent
from autoquant.search_spaces.backends import backend
from autoquant.storage import held_bytes, weight_bytes
from tests.planner.emit.conftest import PlanFor

FIRST_Q = "transformer_blocks.0.attn.to_q"


def modules(pipeline: Any) -> dict[str, torch.nn.Module]:
    return {
        name: part
        for name, part in pipeline.components.items()
        if isinstance(part, torch.nn.Module)
    }


def narrow_layers(pipeline: Any) -> dict[str, set[str]]:
    """Linear layers that hold fewer bytes than in bfloat16."""
    return {
        name: {
            path
            for path, layer in module.named_modules()
            if hasattr(layer, "in_features")
            and weight_bytes(layer) < layer.in_features * layer.out_features * 2
        }
        for name, module in modules(pipeline).items()
    }


def image(pipeline: Any, plan: Plan) -> np.ndarray[Any, Any]:
    pipeline.set_progress_bar_config(disable=True)
    return draw(pipeline, plan.workload, next(iter(plan.workload.batches())))


def emitted_pipeline(plan: Plan, directory: Path) -> Any:
    plan.emit("diffusers-config", directory, force=True)
    return runpy.run_path(str(directory / PYTHON_NAME))["load_pipeline"]()


def as_on_a_gpu(pipeline: Any) -> Any:
    """Keep bitsandbytes from repacking 4-bit weights, as it does on some CPUs alone."""
    for module in modules(pipeline).values():
        for layer in module.modules():
            if hasattr(layer, "support_avx512bf16_for_cpu"):
                layer.support_avx512bf16_for_cpu = False
    return pipeline


@pytest.mark.usefixtures("bitsandbytes_on_cpu")
@pytest.mark.parametrize(
    "schemes",
    [
        ("torchao:int8wo", "torchao:int8dq", "torchao:float8wo"),
        ("bitsandbytes:nf4", "bitsandbytes:nf4", "bitsandbytes:fp4"),
        ("quanto:int8", "none", "quanto:float8"),
        ("sdnq:uint4", "none", "sdnq:int8"),
    ],
)
def test_what_diffusers_loads_is_what_was_measured(
    schemes: tuple[str, ...], plan_for: PlanFor, tmp_path: Path
) -> None:
    names = ("transformer", "text_encoder_2", "text_encoder")
    plan = plan_for(**dict(zip(names, schemes, strict=True)))
    ours, theirs = plan.load(device="cpu"), as_on_a_gpu(emitted_pipeline(plan, tmp_path / "out"))
    assert narrow_layers(theirs) == narrow_layers(ours)
    for name, module in modules(ours).items():
        assert held_bytes(modules(theirs)[name]) == pytest.approx(held_bytes(module), rel=0.001)
    np.testing.assert_array_equal(image(theirs, plan), image(ours, plan))


@pytest.mark.usefixtures("bitsandbytes_on_cpu")
@pytest.mark.parametrize(
    ("scheme", "exclusions", "also_kept"),
    [
        ("torchao:int8wo", (FIRST_Q, "proj_out", "single_transformer_blocks.0.norm"), ()),
        ("sdnq:int8", (FIRST_Q, "proj_out", "single_transformer_blocks.0.norm"), ()),
        ("bitsandbytes:int8", (FIRST_Q, "single_transformer_blocks.0.norm"), ()),
        ("bitsandbytes:int8", ("proj_out",), ("single_transformer_blocks.{n}.proj_out",)),
        ("bitsandbytes:nf4", (FIRST_Q,), ()),
        ("bitsandbytes:nf4", ("proj_out",), ("single_transformer_blocks.{n}.proj_out",)),
        ("quanto:int8", ("proj_out",), ("single_transformer_blocks.{n}.proj_out",)),
        (
            "quanto:int8",
            (FIRST_Q,),
            ("transformer_blocks.{n}.attn.to_q", "single_transformer_blocks.{n}.attn.to_q"),
        ),
    ],
)
def test_what_an_exclusion_keeps_beyond_the_plan_is_foretold(
    scheme: str,
    exclusions: tuple[str, ...],
    also_kept: tuple[str, ...],
    plan_for: PlanFor,
    tmp_path: Path,
) -> None:
    plan = plan_for(transformer=PlannedComponent(scheme=scheme, exclusions=exclusions))
    planned = set(read_layout(plan).components["transformer"].quantized)
    loaded = narrow_layers(emitted_pipeline(plan, tmp_path / "out"))["transformer"]
    widened = {path.format(n=n) for path in also_kept for n in range(99)} & planned
    assert loaded == planned - widened
    lost = json.loads((tmp_path / "out" / JSON_NAME).read_text())["_lost"]
    assert bool(lost) == bool(widened)
    assert all(path in lost[0] for path in sorted(widened)[:1])


def test_what_transformers_keeps_in_float32_is_foretold(plan_for: PlanFor, tmp_path: Path) -> None:
    plan = plan_for(text_encoder_2="quanto:int8")
    planned = set(read_layout(plan).components["text_encoder_2"].quantized)
    loaded = narrow_layers(emitted_pipeline(plan, tmp_path / "out"))["text_encoder_2"]
    assert {path.rpartition(".")[2] for path in planned - loaded} == {"wo"}
    lost = (tmp_path / "out" / PYTHON_NAME).read_text()
    assert "# Lost: text_encoder_2: encoder.block.0.layer.1.DenseReluDense.wo" in lost


def test_the_json_holds_the_same_configs_as_the_python(plan_for: PlanFor, tmp_path: Path) -> None:
    plan = plan_for(
        transformer=PlannedComponent(scheme="torchao:int8wo", exclusions=(FIRST_Q,)),
        text_encoder_2="bitsandbytes:nf4",
        text_encoder="quanto:int8",
    )
    plan.emit("diffusers-config", tmp_path / "out", force=True)
    entries = json.loads((tmp_path / "out" / JSON_NAME).read_text())
    built = runpy.run_path(str(tmp_path / "out" / PYTHON_NAME))["quantization_config"]()
    from_dict = {
        "diffusers": DiffusersAutoQuantizer.from_dict,
        "transformers": AutoQuantizationConfig.from_dict,
    }
    for name, entry in entries["quant_mapping"].items():
        library = entries["libraries"][name]
        assert from_dict[library](entry).to_dict() == built.quant_mapping[name].to_dict()


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (PlannedComponent(scheme="layerwise:float8_e4m3fn"), "no load-time quantization"),
        (PlannedComponent(scheme="sdnq:float8_e4m3fn"), "reports the dtype in which SDNQ stores"),
        (PlannedComponent(scheme="torchao:int8wo", fuse_qkv=True), "only be fused after loading"),
    ],
)
def test_a_choice_without_a_config_is_refused_with_the_way_out(
    part: PlannedComponent, reason: str, plan_for: PlanFor, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"{reason}.* Use the target 'diffusers'"):
        plan_for(transformer=part).emit("diffusers-config", tmp_path / "out", force=True)
    assert not (tmp_path / "out").exists()


def test_torchao_types_are_what_the_backend_measures(plan_for: PlanFor) -> None:
    for precision in ("int8wo", "float8wo", "int8dq"):
        recipe = backend("torchao").recipe(precision)
        assert TORCHAO_TYPES[precision].class_name == recipe.arguments["config"]
        assert TORCHAO_TYPES[precision].build().set_inductor_config is False
    assert set(TORCHAO_TYPES) == set(backend("torchao").precisions)
