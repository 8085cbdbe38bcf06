"""Checked with simpletuner 4.10.1 and OneTrainer at 23df3832: their own code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoquant.errors import InputError
from autoquant.planner.emit.layout import read_layout
from autoquant.planner.emit.load_time import LoadTimeConfig, load_time_config
from autoquant.planner.plan import PlannedComponent
from tests.planner.emit.conftest import PlanFor
from tests.planner.emit.real_tools import probe, tool_directory

# OneTrainer modules/util/enum/DataType.py.
ONETRAINER_DTYPES = {
    *("NONE", "FLOAT_8", "FLOAT_16", "FLOAT_32", "BFLOAT_16", "TFLOAT_32", "INT_8", "NFLOAT_4"),
    *("FLOAT_W8A8", "INT_W8A8", "GGUF", "GGUF_A8_FLOAT", "GGUF_A8_INT"),
}


def test_simpletuner_builds_the_configs_that_were_measured(
    plan_for: PlanFor, tmp_path: Path
) -> None:
    plan = plan_for(
        transformer=PlannedComponent(scheme="torchao:int8wo", exclusions=("proj_out",)),
        text_encoder_2="bitsandbytes:nf4",
    )
    plan.emit("simpletuner", tmp_path / "out", force=True)
    found = probe("simpletuner_probe", tmp_path / "out/config.json", tool_directory("simpletuner"))
    assert found.pop("text_encoder") is None
    layout = read_layout(plan)
    for name, entry in found.items():
        config = load_time_config(layout.components[name], plan.components[name].choice, "bfloat16")
        assert isinstance(config, LoadTimeConfig)
        expected = json.loads(json.dumps(config.build().to_dict(), default=str))
        assert entry.pop("library") == config.library
        if "quant_type" in entry:  # the one difference: torch.compile's settings
            entry["quant_type"]["default"]["_data"]["set_inductor_config"] = False
        assert entry == expected


def test_simpletuner_is_told_of_every_text_encoder(plan_for: PlanFor, tmp_path: Path) -> None:
    """One that is not named would take the entry of ``text_encoder``."""
    plan_for(text_encoder="quanto:int8").emit("simpletuner", tmp_path / "out", force=True)
    entries = json.loads((tmp_path / "out/config.json").read_text())["quantization_config"]
    assert entries["text_encoder_2"] is None
    assert entries["text_encoder"] == {"weights": "int8", "modules_to_not_convert": []}


def test_simpletuner_has_no_layerwise_casting(plan_for: PlanFor, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="simpletuner cannot carry this plan"):
        plan_for(transformer="layerwise:float8_e4m3fn").emit(
            "simpletuner", tmp_path / "out", force=True
        )


def test_onetrainer_quantizes_what_was_foretold(
    plan_for: PlanFor, demo_directory: Path, tmp_path: Path
) -> None:
    kept = "transformer_blocks.0.attn.to_out"
    plan = plan_for(
        transformer=PlannedComponent(scheme="bitsandbytes:nf4", exclusions=(kept, "proj_out")),
        text_encoder_2="torchao:float8wo",
    )
    emitted = plan.emit("onetrainer", tmp_path / "out", force=True)
    file = tmp_path / "out/onetrainer.json"
    entries = json.loads(file.read_text())
    parts = {
        name: part["weight_dtype"]
        for name, part in entries.items()
        if isinstance(part, dict) and "weight_dtype" in part
    }
    assert parts == {
        "transformer": "NFLOAT_4",
        "text_encoder": "BFLOAT_16",
        "text_encoder_2": "FLOAT_8",
        "vae": "BFLOAT_16",
    }
    assert set(parts.values()) <= ONETRAINER_DTYPES
    assert emitted.verdict.level == "partial"
    source = tool_directory("OneTrainer")
    found = probe("onetrainer_probe", file, demo_directory, path=source, cwd=source)
    assert found["kept_by_onetrainer"] == {
        name: entries[name] for name in entries if not name.startswith("_autoquant")
    }
    assert found["quantized"] == list(read_layout(plan).components["transformer"].quantized)
