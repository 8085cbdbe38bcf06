from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from autoquant.errors import InputError
from autoquant.planner.budget import Budget
from autoquant.planner.footprint.adapter_shapes import with_adapter_files
from autoquant.planner.footprint.estimate import estimate
from autoquant.planner.footprint.model_shapes import read_model
from autoquant.planner.footprint.request import request_for
from autoquant.planner.footprint.weights import component_bytes
from autoquant.search_spaces.scheme import Choice


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    """Trained in float32, as many are; it is loaded in the compute dtype."""
    tensors = {
        "transformer.proj_out.lora_A.weight": torch.zeros(4, 64),
        "transformer.proj_out.lora_B.weight": torch.zeros(64, 4),
    }
    save_file(tensors, tmp_path / "style.safetensors")
    return tmp_path / "style.safetensors"


def test_adapters_count_in_the_compute_dtype(lora: Path) -> None:
    plain = read_model("demo")
    adapted = with_adapter_files(plain, [lora, lora])

    def held(model):
        parts = model.components.values()
        return sum(component_bytes(part, Choice(), "bfloat16") for part in parts)

    assert held(adapted) - held(plain) == 2 * 2 * 4 * 64 * 2
    asked = {model: request_for(model, 64, 64, 1, "bfloat16") for model in (plain, adapted)}
    estimates = [
        estimate(model, request, Budget.of(vram_gb=1), ["torchao:int8wo"])
        for model, request in asked.items()
    ]
    for without, with_them in zip(*(made.rows for made in estimates), strict=True):
        assert with_them.option == without.option
        more = with_them.prediction.weights.allocated - without.prediction.weights.allocated
        # The allocator rounds each tensor up to 512 bytes.
        assert more == 4 * 512


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"no")
    for name in ("x", "none"):
        with pytest.raises(InputError, match=rf"{name}\.safetensors is no sound"):
            with_adapter_files(read_model("demo"), [tmp_path / f"{name}.safetensors"])
