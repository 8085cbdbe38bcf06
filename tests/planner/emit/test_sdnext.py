"""Checked with SD.Next at 058a7f0c: the settings that modules/ui_definitions.py defines."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from autoquant.planner.candidate import Runtime
from autoquant.planner.plan import PlannedComponent
from tests.planner.emit.conftest import PlanFor
from tests.planner.emit.real_tools import tool_directory

# From modules/ui_definitions.py and modules/shared_items.py: a list is a choice, a set several.
SDNQ = [
    *("int8", "uint8", "int6", "uint6", "uint5", "uint4", "uint3", "uint2", "float8_e4m3fn"),
    *("float8_e3m4fn", "float6_e3m2fn", "float5_e2m2fn", "float4_e2m1fn", "float3_e1m1fn"),
    *("float2_e1m0fn", "int16", "uint16", "float16"),
]
MATMUL = ["disabled", "enabled", "int8", "uint8", "float8_e4m3fn", "float16"]
SETTINGS: dict[str, Any] = {
    "cuda_dtype": ["Auto", "FP32", "FP16", "BF16"],
    "sdnq_quantize_weights": {"Model", "TE", "LLM", "Control", "VAE"},
    "sdnq_quantize_mode": ["auto", "pre", "post"],
    "sdnq_quantize_weights_mode": SDNQ,
    "sdnq_quantize_weights_mode_te": ["Same as model", *SDNQ],
    "sdnq_quantize_matmul_mode": MATMUL,
    "sdnq_quantize_matmul_mode_te": ["Same as model", *MATMUL],
    "sdnq_modules_to_not_convert": str,
    "layerwise_quantization": {"Model", "TE"},
    "diffusers_offload_mode": ["none", "balanced", "group", "model", "sequential"],
    "group_offload_type": ["leaf_level", "block_level"],
    "group_offload_stream": bool,
    "diffusers_vae_tiling": bool,
    "diffusers_vae_slicing": bool,
    "cuda_compile": {"Model", "TE", "VAE", "LLM", "Control", "Upscaler"},
    "cuda_compile_options": {
        *("components", "precompile", "repeated", "fullgraph", "dynamic", "verbose"),
    },
    "layerwise_quantization_storage": ["float8_e4m3fn", "float8_e5m2"],
}
PLANS: dict[str, dict[str, PlannedComponent | str]] = {
    "sdnq": {
        "transformer": PlannedComponent(scheme="sdnq:uint4", exclusions=("proj_out",)),
        "text_encoder_2": "sdnq:int8",
    },
    "others": {"transformer": "bitsandbytes:nf4", "text_encoder_2": "quanto:int2"},
    "layerwise": {"transformer": "layerwise:float8_e5m2", "text_encoder": "torchao:float8wo"},
    "text": {"text_encoder_2": "bitsandbytes:int8"},
    "nothing": {},
}


def settings_of(plan_for: PlanFor, name: str, directory: Path) -> dict[str, Any]:
    plan_for(**PLANS[name]).emit("sdnext", directory, force=True)
    settings: dict[str, Any] = json.loads((directory / "config.json").read_text())
    return settings


def require_allowed(settings: dict[str, Any], allowed: dict[str, Any]) -> None:
    for key, value in settings.items():
        if key.startswith("uiux_"):  # passed over by modules/options_handler.py
            continue
        choices = allowed[key]
        if isinstance(choices, set):
            assert set(value) <= choices
        elif isinstance(choices, list):
            assert value in choices
        else:
            assert isinstance(value, str | bool)


@pytest.mark.parametrize("name", PLANS)
def test_settings_are_ones_that_sdnext_has(name: str, plan_for: PlanFor, tmp_path: Path) -> None:
    require_allowed(settings_of(plan_for, name, tmp_path / "out"), SETTINGS)


@pytest.mark.parametrize("name", PLANS)
def test_settings_are_ones_that_this_sdnext_defines(
    name: str, plan_for: PlanFor, tmp_path: Path
) -> None:
    allowed = defined_settings(tool_directory("sdnext") / "modules")
    require_allowed(settings_of(plan_for, name, tmp_path / "out"), allowed)


LEVERS = Runtime(offload="group_leaf_stream", compile="regional", vae_tiling=True, vae_slicing=True)


def settings_with_levers(plan_for: PlanFor, directory: Path) -> dict[str, Any]:
    plan = plan_for(transformer="sdnq:int8").model_copy(update={"runtime": LEVERS})
    plan.emit("sdnext", directory, force=True)
    settings: dict[str, Any] = json.loads((directory / "config.json").read_text())
    return settings


def test_levers_are_settings_that_sdnext_has(plan_for: PlanFor, tmp_path: Path) -> None:
    settings = settings_with_levers(plan_for, tmp_path / "out")
    require_allowed(settings, SETTINGS)
    assert settings["diffusers_offload_mode"] == "group"
    assert settings["group_offload_type"] == "leaf_level"
    assert settings["group_offload_stream"] is True
    assert settings["cuda_compile_options"] == ["repeated"]


def test_levers_are_settings_that_this_sdnext_defines(plan_for: PlanFor, tmp_path: Path) -> None:
    allowed = defined_settings(tool_directory("sdnext") / "modules")
    require_allowed(settings_with_levers(plan_for, tmp_path / "out"), allowed)


def test_one_dtype_holds_for_all_text_encoders(plan_for: PlanFor, tmp_path: Path) -> None:
    plan = plan_for(
        transformer="sdnq:uint4", text_encoder="sdnq:int8", text_encoder_2="bitsandbytes:nf4"
    )
    emitted = plan.emit("sdnext", tmp_path / "out", force=True)
    settings = json.loads((tmp_path / "out/config.json").read_text())
    assert settings["sdnq_quantize_weights_mode"] == "uint4"
    assert settings["sdnq_quantize_weights_mode_te"] == "int8"
    assert any("text_encoder_2 uint4" in loss for loss in emitted.verdict.lost)
    assert set(emitted.verdict.lost) < set(settings["uiux_autoquant"])


def test_exclusions_are_spelled_for_sdnq(plan_for: PlanFor, tmp_path: Path) -> None:
    settings = settings_of(plan_for, "sdnq", tmp_path / "out")
    kept = settings["sdnq_modules_to_not_convert"].split()
    assert "proj_out.weight" in kept
    assert all(path.endswith(".weight") for path in kept)


def defined_settings(modules: Path) -> dict[str, Any]:
    """Each setting's choices: a list where one is chosen, a set where several are."""
    constants: dict[str, Any] = {}
    for node in ast.parse((modules / "shared_items.py").read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                constants[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    found: dict[str, Any] = {}
    for node in ast.walk(ast.parse((modules / "ui_definitions.py").read_text())):
        if not isinstance(node, ast.Dict):
            continue
        for key, value in zip(node.keys, node.values, strict=True):
            is_option = isinstance(value, ast.Call) and ast.unparse(value.func) == "OptionInfo"
            if is_option and isinstance(key, ast.Constant):
                found[key.value] = _choices(value, constants)
    return found


def _choices(call: Any, constants: dict[str, Any]) -> Any:
    several = any(ast.unparse(argument) == "gr.CheckboxGroup" for argument in call.args)
    for argument in call.args:
        if not isinstance(argument, ast.Dict):
            continue
        for key, value in zip(argument.keys, argument.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "choices":
                try:
                    choices = eval(  # noqa: S307 - names and lists of a file that was just parsed
                        ast.unparse(value), {"__builtins__": {}}, constants
                    )
                except (NameError, TypeError, AttributeError):
                    return str  # worked out while SD.Next runs
                return set(choices) if several else list(choices)
    return str
