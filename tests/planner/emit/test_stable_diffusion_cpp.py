"""Checked against stable-diffusion.cpp's rules at 97d29908, written down here from its source.

``src/model_loader.cpp`` splits rules at commas, each at its first ``=``, matches with
``std::regex_search``, and takes the first that matches; types are ggml's names, in their own case.
``examples/common/common.cpp`` has the options, stable-diffusion-cpp-python 0.4.7 the arguments;
where that binding is installed, its compiled core reads the rules itself.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from autoquant.planner.candidate import Runtime
from autoquant.planner.emit.layout import ComponentLayout, Layout
from autoquant.planner.emit.stable_diffusion_cpp import (
    JSON_NAME,
    SHELL_NAME,
    StableDiffusionCpp,
)
from autoquant.planner.plan import Plan, PlannedComponent, PlannedPipeline
from tests.planner.emit.conftest import PlanFor
from tests.planner.emit.real_tools import probe, tool_directory

TYPES = {
    *("f32", "f16", "bf16", "q8_0", "q5_0", "q5_1", "q4_0", "q4_1", "q2_K", "q3_K", "q4_K"),
    *("q5_K", "q6_K", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq1_s", "iq1_m"),
    *("iq4_nl", "iq4_xs", "tq1_0", "tq2_0", "mxfp4", "nvfp4"),
}
OPTIONS = {
    *("-m", "--diffusion-model", "--clip_l", "--clip_g", "--t5xxl", "--llm", "--vae", "--type"),
    *("--tensor-type-rules", "-p", "-W", "-H", "--steps", "-s"),
}
KEYWORDS = {
    *("model_path", "diffusion_model_path", "clip_l_path", "clip_g_path", "t5xxl_path"),
    *("llm_path", "vae_path", "wtype", "tensor_type_rules"),
}


def type_of(tensor: str, rules: str, default: str) -> str:
    """What stable-diffusion.cpp would store a tensor of this name as."""
    for rule in filter(None, rules.split(",")):
        pattern, _, kind = rule.partition("=")
        assert kind in TYPES
        if re.search(pattern, tensor):
            return kind
    return default


QKV = "model.diffusion_model.double_blocks.0.img_attn.qkv.weight"
T5_Q = "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q.weight"
CLIP_FC1 = "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
VAE_Q = "first_stage_model.decoder.mid.attn_1.q.weight"


def mixed_plan(plan_for: PlanFor) -> Plan:
    return plan_for(
        transformer="gguf:Q4_0", text_encoder_2="bitsandbytes:int8", text_encoder="quanto:int2"
    )


def test_each_component_gets_its_type(plan_for: PlanFor, tmp_path: Path) -> None:
    emitted = mixed_plan(plan_for).emit("stable-diffusion.cpp", tmp_path / "out", force=True)
    arguments = json.loads((tmp_path / "out" / JSON_NAME).read_text())["StableDiffusion"]
    assert set(arguments) <= KEYWORDS
    rules = arguments["tensor_type_rules"]
    expected = {QKV: "q4_0", T5_Q: "q8_0", CLIP_FC1: "q2_K", VAE_Q: "bf16"}
    assert {name: type_of(name, rules, arguments["wtype"]) for name in expected} == expected
    assert any("int8 becomes" in loss for loss in emitted.verdict.lost)
    assert not any(loss.startswith("transformer") for loss in emitted.verdict.lost)


def test_the_tool_itself_gives_each_tensor_its_type(plan_for: PlanFor, tmp_path: Path) -> None:
    tool = tool_directory("stable_diffusion_cpp")
    mixed_plan(plan_for).emit("stable-diffusion.cpp", tmp_path / "out", force=True)
    arguments = json.loads((tmp_path / "out" / JSON_NAME).read_text())["StableDiffusion"]
    single_file = tmp_path / "model.safetensors"
    # Its q2_K has blocks of 256; what they do not divide into stays as it is.
    weights = {name: torch.zeros(256, 256) for name in (QKV, T5_Q, CLIP_FC1, VAE_Q)}
    save_file(weights, single_file)
    types = probe(
        *("stable_diffusion_cpp_probe", single_file, tmp_path / "model.gguf"),
        *(arguments["wtype"], arguments["tensor_type_rules"]),
        path=tool.parent,
    )
    assert types == {QKV: "Q4_0", T5_Q: "Q8_0", CLIP_FC1: "Q2_K", VAE_Q: "BF16"}


def test_levers_are_its_own_options(plan_for: PlanFor, tmp_path: Path) -> None:
    runtime = Runtime(offload="model", vae_tiling=True, attention="flash", compile="regional")
    plan = plan_for(transformer="gguf:Q8_0").model_copy(update={"runtime": runtime})
    emitted = plan.emit("stable-diffusion.cpp", tmp_path / "out", force=True)
    words = shlex.split((tmp_path / "out" / SHELL_NAME).read_text(), comments=True)
    assert {"--offload-to-cpu", "--vae-tiling", "--diffusion-fa"} <= set(words)
    entries = json.loads((tmp_path / "out" / JSON_NAME).read_text())
    assert entries["StableDiffusion"]["offload_params_to_cpu"] is True
    assert entries["generate_image"] == {"vae_tiling": True}
    assert [loss.partition(":")[0] for loss in emitted.verdict.lost] == ["compile regional"]


def test_the_command_line_is_a_sound_shell_script(plan_for: PlanFor, tmp_path: Path) -> None:
    prompt = 'it\'s "a cat"; $(touch hacked) `touch hacked` \\ %s'
    plan = plan_for(transformer="bitsandbytes:nf4")
    plan = plan.model_copy(
        update={"workload": plan.workload.model_copy(update={"prompts": (prompt,)})}
    )
    plan.emit("stable-diffusion.cpp", tmp_path / "out", force=True)
    shown = subprocess.run(
        ["sh", tmp_path / "out" / SHELL_NAME],
        env={"SD": str(_printer(tmp_path)), "MODELS": "/models", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    ).stdout.split("\0")[:-1]
    assert set(shown[::2]) <= OPTIONS
    given = dict(zip(shown[::2], shown[1::2], strict=True))
    assert given["-p"] == prompt
    assert given["--type"] in TYPES
    assert given["--vae"] == "/models/pipeline-vae.safetensors"
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    ("class_name", "denoiser", "tensor"),
    [
        ("StableDiffusion3Pipeline", "transformer", "model.diffusion_model.joint_blocks.0.x"),
        ("StableDiffusionXLPipeline", "unet", "model.diffusion_model.input_blocks.0.x"),
        ("StableDiffusionPipeline", "unet", "model.diffusion_model.input_blocks.0.x"),
        ("QwenImagePipeline", "transformer", "model.diffusion_model.transformer_blocks.0.x"),
    ],
)
def test_other_families_name_their_files(
    class_name: str, denoiser: str, tensor: str, plan_for: PlanFor
) -> None:
    plan = plan_for(
        **{denoiser: PlannedComponent(scheme="gguf:Q8_0"), "text_encoder": "gguf:Q5_1"}
    ).model_copy(update={"pipeline": PlannedPipeline(class_name=class_name, source="owner/model")})
    layout = Layout(
        "owner/model",
        {
            denoiser: ComponentLayout("diffusers", "Denoiser"),
            "text_encoder": ComponentLayout("transformers", "Encoder"),
        },
    )
    emitter = StableDiffusionCpp()
    assert emitter.carries(plan, layout).level == "full"
    arguments = json.loads(emitter.files(plan, layout)[JSON_NAME])["StableDiffusion"]
    assert type_of(tensor, arguments["tensor_type_rules"], arguments["wtype"]) == "q8_0"
    assert "q5_1" in arguments["tensor_type_rules"]


def _printer(folder: Path) -> Path:
    path = folder / "print-arguments"
    path.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    path.chmod(0o755)
    assert shlex.quote(str(path)) == str(path)
    return path
