"""Sizes that can be counted by hand: a float32 tensor of n elements is 4 n bytes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoquant.metrics.tracked_tensors import TensorTracker
from autoquant.storage import held_bytes


def test_allocations_add_up_and_frees_come_off() -> None:
    with TensorTracker() as tracker:
        kept = torch.empty(1000)
        gone = torch.empty(5000)
        assert tracker.live_bytes == 24_000
        del gone
        assert tracker.live_bytes == 4_000
        also_kept = torch.empty(2000)
    assert tracker.live_bytes == 12_000
    assert tracker.peak_bytes == 24_000
    del kept, also_kept
    assert tracker.live_bytes == 0


def test_views_and_in_place_operations_cost_nothing() -> None:
    with TensorTracker() as tracker:
        base = torch.zeros(1000)
        base.view(10, 100).transpose(0, 1)[3:].add_(1)
        base.mul_(2)
    assert tracker.peak_bytes == 4_000


def test_a_view_keeps_its_storage_alive() -> None:
    with TensorTracker() as tracker:
        base = torch.empty(1000)
        view = base[:1]
        del base
        assert tracker.live_bytes == 4_000
        del view
        assert tracker.live_bytes == 0


def test_resizing_in_place_is_followed() -> None:
    with TensorTracker() as tracker:
        tensor = torch.empty(1000)
        tensor.resize_(3000)
        assert tracker.live_bytes == 12_000
        del tensor
    assert tracker.live_bytes == 0


def test_a_temporary_within_an_expression_counts() -> None:
    with TensorTracker() as tracker:
        x = torch.ones(1000)
        y = (x + 1).sum()
    assert tracker.peak_bytes == 4_000 + 4_000 + 4
    del y


def test_a_storage_held_by_two_modules_counts_once() -> None:
    tied = nn.Linear(10, 10, bias=False)
    other = nn.Linear(10, 10, bias=False)
    other.weight = tied.weight
    tracker = TensorTracker()
    tracker.hold(tied)
    tracker.hold(other)
    assert tracker.live_bytes == 400


def test_a_held_module_comes_off_when_it_dies() -> None:
    layers = nn.Sequential(nn.Linear(100, 100, bias=False), nn.Linear(100, 100, bias=False))
    with TensorTracker() as tracker:
        tracker.hold(layers)
        assert tracker.peak_bytes == 80_000
        for layer in layers:  # a quantizer that goes layer by layer
            layer.weight = nn.Parameter(layer.weight.to(torch.float16))
        assert tracker.live_bytes == 40_000
        # Both float32 weights and the first float16 one: the second copy comes after a float32
        # weight has gone.
        assert tracker.peak_bytes == 100_000


def test_only_the_chosen_kind_of_device_counts() -> None:
    with TensorTracker() as tracker:
        skeleton = torch.empty(10**9, device="meta")
    assert tracker.peak_bytes == 0
    with TensorTracker("meta") as prediction:
        skeleton.to(torch.float64)
    assert prediction.peak_bytes == 8 * 10**9


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_both_ways_to_switch_gradients_off_agree(mode: type[torch.no_grad]) -> None:
    mlp = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
    with mode(), TensorTracker() as tracker:
        tracker.hold(mlp)
        x = torch.ones(128, 64)
        mlp(x)
    # Input, hidden and activated hidden at once.
    assert tracker.peak_bytes == held_bytes(mlp) + 4 * 128 * (64 + 256 + 256)


def test_what_a_quantized_weight_is_dequantized_into_counts() -> None:
    torchao = pytest.importorskip("torchao.quantization")
    linear = nn.Linear(512, 512, bias=False).bfloat16()
    torchao.quantize_(linear, torchao.Int8WeightOnlyConfig())
    x = torch.ones(1, 512, dtype=torch.bfloat16)
    with torch.no_grad(), TensorTracker() as tracker:
        tracker.hold(linear)
        linear(x)
    assert held_bytes(linear) < 300_000
    assert tracker.peak_bytes - held_bytes(linear) >= 512 * 512 * 2
