"""Checked with cache-dit 1.5.3: its own reader, and its own quantization of the demo."""

from __future__ import annotations

from pathlib import Path

import yaml

from autoquant.planner.emit.layout import read_layout
from autoquant.planner.plan import PlannedComponent
from tests.planner.emit.conftest import PlanFor
from tests.planner.emit.real_tools import probe, tool_directory

FIRST_Q = "transformer_blocks.0.attn.to_q"


def test_cache_dit_quantizes_what_was_foretold(
    plan_for: PlanFor, demo_directory: Path, tmp_path: Path
) -> None:
    plan = plan_for(
        transformer=PlannedComponent(scheme="torchao:int8wo", exclusions=(FIRST_Q,)),
        text_encoder_2="torchao:int8dq",
    )
    emitted = plan.emit("cache-dit", tmp_path / "out", force=True)
    tools = tool_directory("cache_dit").parent
    found = probe("cache_dit_probe", tmp_path / "out/cache_dit.yaml", demo_directory, path=tools)
    layout = read_layout(plan)
    single = f"single_{FIRST_Q}"
    expected = [p for p in layout.components["transformer"].quantized if p != single]
    assert found["unknown"] == []
    assert found["types"] == {"transformer": "int8_weight_only", "text_encoder_2": "int8_per_row"}
    assert found["quantized"]["transformer"] == expected
    assert found["quantized"]["text_encoder_2"] == list(
        layout.components["text_encoder_2"].quantized
    )
    assert emitted.verdict.lost[0].startswith(f"transformer: {single} stay unquantized too")


def test_other_backends_are_said_to_become_torchao(plan_for: PlanFor, tmp_path: Path) -> None:
    plan = plan_for(transformer="bitsandbytes:nf4", text_encoder="quanto:int2")
    emitted = plan.emit("cache-dit", tmp_path / "out", force=True)
    text = (tmp_path / "out/cache_dit.yaml").read_text()
    components = yaml.safe_load(text)["quantize_config"]["components_to_quantize"]
    assert {name: entry["quant_type"] for name, entry in components.items()} == {
        "transformer": "int4_weight_only"
    }
    assert emitted.verdict.level == "partial"
    assert "# Lost: transformer: bitsandbytes:nf4 becomes cache-dit's int4_weight_only" in text
    assert "# Lost: text_encoder stays unquantized" in text
