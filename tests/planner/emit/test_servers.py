"""Checked with sglang 0.5.23 and vllm-omni 0.30.0: their own code, lifted out of their wheels."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from autoquant.errors import InputError
from autoquant.planner.emit.layout import read_layout
from autoquant.planner.plan import PlannedComponent
from tests.planner.emit.conftest import PlanFor
from tests.planner.emit.real_tools import probe, tool_directory


def test_sglang_accepts_the_file_as_it_is_meant(plan_for: PlanFor, tmp_path: Path) -> None:
    plan = plan_for(
        transformer=PlannedComponent(scheme="layerwise:float8_e4m3fn", exclusions=("norm_out",)),
        text_encoder_2="bitsandbytes:int8",
        text_encoder="bitsandbytes:nf4",
    )
    emitted = plan.emit("sglang", tmp_path / "out", force=True)
    file = tmp_path / "out/sglang.yaml"
    assert sum("text_encoder stays unquantized" in loss for loss in emitted.verdict.lost) == 1
    assert set(yaml.safe_load(file.read_text())["component_precisions"].values()) == {"bf16"}
    found = probe("sglang_probe", file, tool_directory("sglang"))
    assert found["unknown"] == []
    assert found["quantizations"] == {"transformer": "fp8", "text_encoder_2": "convrot_int8"}
    assert set(found["quantizations"].values()) <= set(found["online"])
    assert found["ignored"]["transformer"] == list(read_layout(plan).components["transformer"].kept)


def test_sglang_has_no_4_bits(plan_for: PlanFor, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sglang cannot carry this plan: transformer: SGLang"):
        plan_for(transformer="bitsandbytes:nf4").emit("sglang", tmp_path / "out", force=True)


def test_vllm_omni_loads_the_denoiser_as_planned(
    plan_for: PlanFor, demo_directory: Path, tmp_path: Path
) -> None:
    plan = plan_for(
        transformer=PlannedComponent(
            scheme="torchao:int8wo", exclusions=("transformer_blocks.0.attn.to_q", "proj_out")
        ),
        text_encoder="torchao:int8wo",
    )
    emitted = plan.emit("vllm-omni", tmp_path / "out", force=True)
    assert len(emitted.verdict.lost) == 1
    assert "text_encoder stays unquantized" in emitted.verdict.lost[0]
    found = probe(
        "vllm_omni_probe",
        tmp_path / "out/vllm_omni.yaml",
        demo_directory,
        tool_directory("vllm_omni"),
    )
    assert found["unknown"] == []
    assert found["quantized"] == list(read_layout(plan).components["transformer"].quantized)


def test_vllm_omni_tells_4_bits_from_8(plan_for: PlanFor, tmp_path: Path) -> None:
    """It looks the method up in diffusers' table, which has no plain ``bitsandbytes``."""
    for scheme, method in (("nf4", "bitsandbytes_4bit"), ("int8", "bitsandbytes_8bit")):
        plan = plan_for(transformer=f"bitsandbytes:{scheme}")
        plan.emit("vllm-omni", tmp_path / scheme, force=True)
        (stage,) = yaml.safe_load((tmp_path / scheme / "vllm_omni.yaml").read_text())["stages"]
        mapping = stage["diffusers_load_kwargs"]["quantization_config"]["quant_mapping"]
        assert mapping["transformer"]["quant_method"] == method
