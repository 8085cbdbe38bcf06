from __future__ import annotations

import ast
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from autoquant.planner.candidate import Runtime
from autoquant.planner.emit.loader_script import loader_script
from autoquant.planner.plan import PlannedComponent
from autoquant.planner.workload import Workload
from tests.planner.test_plan import a_plan

CLASSES = {
    "transformer": ("diffusers", "FluxTransformer2DModel"),
    "text_encoder": ("transformers", "CLIPTextModel"),
}
HOSTILE = '"""\n\'\'\'\\\r\n\x00\u2028{0}%s"; import os; os.abort() #'


def script_of(source: str = "owner/model", **changes: Any) -> str:
    return loader_script(a_plan(**changes), source, CLASSES, {"transformer": ("proj_out",)})


def constants(script: str) -> dict[str, Any]:
    """The literal values that a script assigns at its top level."""
    found = {}
    for node in ast.parse(script).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


def calls(script: str) -> set[str]:
    return {
        ast.unparse(node.func) for node in ast.walk(ast.parse(script)) if isinstance(node, ast.Call)
    }


def test_the_script_names_what_is_loaded_and_what_is_kept() -> None:
    script = script_of()
    assert "from diffusers import DiffusionPipeline, FluxTransformer2DModel" in script
    assert "CLIPTextModel" not in script
    assert constants(script)["SOURCE"] == "owner/model"
    assert constants(script)["KEPT"] == {"transformer": ["proj_out"]}
    assert "quantize_with_torchao(module, layers, config='Int8WeightOnlyConfig')" in script


def test_a_plan_that_changes_nothing_loads_the_pipeline_as_it_is() -> None:
    script = script_of(components={"transformer": PlannedComponent()})
    assert "quantize" not in script
    assert "linear_layers" not in script
    assert constants(script)["KEPT"] == {}


def test_fusing_is_done_before_quantizing() -> None:
    fused = PlannedComponent(scheme="torchao:int8wo", fuse_qkv=True)
    script = script_of(components={"transformer": fused})
    assert script.index("    fuse_qkv(module)") < script.index("    quantize_with_torchao(module")


@given(text=st.text(max_size=30))
@example(text=HOSTILE)
def test_no_value_of_a_plan_can_become_code(text: str) -> None:
    script = script_of(
        source=text,
        workload=Workload(prompts=(text or "x",), height=64, width=64, steps=1),
        versions={text: text},
        autoquant=text,
        components={"transformer": PlannedComponent(scheme="torchao:int8wo", why=text)},
    )
    assert constants(script)["SOURCE"] == text
    assert constants(script)["BATCHES"] == [[(text or "x", 0)]]
    usual = script_of(components={"transformer": PlannedComponent(scheme="torchao:int8wo")})
    asks_for_source = {"sys.exit"} if not text else set()
    assert calls(script) == calls(usual) | asks_for_source


def test_levers_are_pulled_by_the_functions_that_measured() -> None:
    runtime = Runtime(offload="model", compile="regional", vae_tiling=True, attention="flash")
    script = script_of(runtime=runtime)
    lines = [line.strip() for line in script.splitlines()]
    start = lines.index("set_vae(pipeline, tiling=True, slicing=False)")
    assert lines[start + 1 : start + 5] == [
        "set_attention(pipeline, 'flash')",
        "enable_offload(pipeline, 'model', device)",
        "compile_denoisers(pipeline, 'regional')",
        "return pipeline",
    ]
    assert "components['transformer'] = module.to('cpu')" in lines
    assert "def enable_offload(" in script
    assert "def attention_restored(" not in script


def test_a_runtime_without_levers_needs_none_of_their_functions() -> None:
    script = script_of()
    assert "pipeline.to(device)" in script
    assert "enable_offload" not in script
