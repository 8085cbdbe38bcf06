from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from torch import nn
from torch.distributed._tools.mem_tracker import MemTracker
from torch.profiler import ProfilerActivity, profile

from autoquant.metrics.memory import MemoryCounter, counter_for
from autoquant.storage import held_bytes
from tests.metrics.conftest import FakeAccelerator

CPU = torch.device("cpu")


def flux_and_inputs() -> tuple[nn.Module, dict[str, object]]:
    model = FluxTransformer2DModel(
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=32,
        num_attention_heads=2,
        in_channels=16,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(8, 12, 12),
    )
    inputs: dict[str, object] = {
        "hidden_states": torch.randn(1, 64, 16),
        "encoder_hidden_states": torch.randn(1, 16, 32),
        "pooled_projections": torch.randn(1, 32),
        "timestep": torch.ones(1),
        "img_ids": torch.zeros(64, 3),
        "txt_ids": torch.zeros(16, 3),
        "return_dict": False,
    }
    return model.eval(), inputs


def vae_and_inputs() -> tuple[nn.Module, dict[str, object]]:
    model = AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
    )
    return model.eval(), {"sample": torch.randn(1, 3, 32, 32)}


@pytest.mark.parametrize("made", [flux_and_inputs, vae_and_inputs])
def test_a_diffusers_model_agrees_with_torchs_tracker_to_the_byte(made) -> None:
    model, inputs = made()
    with torch.no_grad(), counter_for(CPU).watch(model) as reading:
        model(**inputs)
    theirs = MemTracker()
    theirs.track_external(model)
    with torch.no_grad(), theirs:
        model(**inputs)
    assert reading.peak_bytes == theirs.get_tracker_snapshot("peak")[CPU]["Total"]


def test_a_mlp_agrees_with_the_allocator_to_the_byte() -> None:
    mlp = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
    x = torch.randn(128, 64)
    with torch.no_grad(), counter_for(CPU).watch(mlp) as reading:
        mlp(x)
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as events:
        mlp(x)
    live = allocator_peak = 0
    for event in events.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            allocator_peak = max(allocator_peak, live)
    assert reading.peak_bytes - held_bytes(mlp) == allocator_peak


def test_a_module_loaded_inside_is_held(tmp_path) -> None:
    model, _ = flux_and_inputs()
    model.save_pretrained(tmp_path)
    with counter_for(CPU).watch() as reading:
        loaded = FluxTransformer2DModel.from_pretrained(tmp_path)
        reading.hold(loaded)
    # The skeleton on the meta device that from_pretrained makes first takes nothing.
    assert reading.peak_bytes == held_bytes(loaded)


def test_a_peak_is_there_after_the_region_and_after_a_failure_too() -> None:
    counter = counter_for(CPU)
    assert counter.name == "cpu.tracked_tensors"
    readings = []

    def fail_inside() -> None:
        with counter.watch() as reading:
            readings.append(reading)
            torch.empty(100)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert readings[0].peak_bytes == 400
    with (
        counter.watch() as reading,
        pytest.raises(RuntimeError, match="only after its watched region has ended"),
    ):
        _ = reading.peak_bytes


def test_an_accelerator_is_read_after_waiting_and_from_an_empty_cache(
    fake_accelerator: FakeAccelerator,
) -> None:
    counter: MemoryCounter = counter_for(torch.device("cuda:1"))
    assert counter.name == "cuda.reserved"
    with counter.watch(nn.Linear(2, 2)) as reading:
        assert fake_accelerator.calls[:2] == ["synchronize", "empty_cache"]
        assert fake_accelerator.calls[-1] == "reset_peak_memory_stats"
        fake_accelerator.calls.clear()
        reading.hold(nn.Linear(2, 2))
    assert fake_accelerator.calls[:2] == ["synchronize", "max_memory_reserved"]
    assert reading.peak_bytes == 3000
    assert reading.additional_bytes == {"cuda.allocated": 2000, "nvml.used": 5000}
