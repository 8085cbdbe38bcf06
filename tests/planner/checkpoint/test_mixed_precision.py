"""Checkpoints whose layers differ in precision are loaded again and compared layer by layer."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from autoquant.errors import BackendUnavailable
from autoquant.planner.checkpoint import write
from autoquant.planner.checkpoint.gguf_file import write_gguf
from autoquant.planner.checkpoint.reload import component_bytes, first_batch, reload_here
from autoquant.planner.checkpoint.write import write_checkpoint
from tests.planner.emit.conftest import demo_plan
from tests.planner.emit.test_mixed_precision import mixed, stored


def test_a_mixed_checkpoint_is_loaded_as_it_was_saved(
    demo_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "reload", reload_here)
    plan = demo_plan(
        transformer=mixed(
            "torchao:float8wo", "torchao:int8wo", "proj_out", "transformer_blocks.0.ff",
            exclusions=("x_embedder",),
        ),
        text_encoder_2=mixed("torchao:int8dq", "torchao:int8wo", "encoder.block.0"),
    )  # fmt: skip
    written = write_checkpoint(plan, tmp_path / "out", source=str(demo_directory), device="cpu")
    assert written.largest_pixel_difference == 0
    again = DiffusionPipeline.from_pretrained(tmp_path / "out", dtype=torch.bfloat16)
    again.set_progress_bar_config(disable=True)
    planned = plan.load(demo_directory, device="cpu")
    assert stored(again, plan) == stored(planned, plan)
    assert component_bytes(again) == pytest.approx(component_bytes(planned), rel=0.001)
    np.testing.assert_array_equal(
        first_batch(again, plan.workload), first_batch(planned, plan.workload)
    )
    assert "2 modules" in (tmp_path / "out/README.md").read_text()


def test_what_cannot_be_saved_mixed_is_refused(tmp_path: Path) -> None:
    plan = demo_plan(transformer=mixed("quanto:float8", "quanto:int8", "proj_out"))
    with pytest.raises(BackendUnavailable, match=r"transformer .quanto:float8.*--to diffusers"):
        write_checkpoint(plan, tmp_path / "out", device="cpu")


def test_a_gguf_file_holds_a_type_for_each_layer(demo_directory: Path, tmp_path: Path) -> None:
    plan = demo_plan(transformer=mixed("gguf:Q4_0", "gguf:Q8_0", "proj_out", "x_embedder"))
    written = write_gguf(plan, tmp_path / "out", source=str(demo_directory))
    assert written.path.name == "transformer-Q4_0-mixed.gguf"
    assert written.tensors["Q8_0"] == 2
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(written.path).tensors}
    assert (types["final_layer.linear.weight"], types["img_in.weight"]) == ("Q8_0", "Q8_0")
    assert types["txt_in.weight"] == "Q4_0"


def test_layers_that_are_one_tensor_in_a_file_must_agree(
    demo_directory: Path, tmp_path: Path
) -> None:
    plan = demo_plan(transformer=mixed("gguf:Q4_0", "gguf:Q8_0", "transformer_blocks.0.attn.to_q"))
    with pytest.raises(BackendUnavailable, match=r"one tensor in a single file.*Q4_0, Q8_0"):
        write_gguf(plan, tmp_path / "out", source=str(demo_directory))
