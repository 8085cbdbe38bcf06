from __future__ import annotations

import pytest
import torch

from autoquant.search_spaces.backends.bitsandbytes import Bitsandbytes, quantize_to_4_bit
from autoquant.search_spaces.linears import linears
from autoquant.storage import held_bytes


@pytest.mark.parametrize("precision", ["nf4", "fp4"])
def test_state_dict_after_forward_leaves_the_model_whole(quantized, run, precision):
    made = quantized("t5", f"bitsandbytes:{precision}")
    before = held_bytes(made.module)
    made.module.state_dict()
    assert torch.equal(run("t5", made.module), made.output)
    assert held_bytes(made.module) == before


def test_t5_wo_in_4_bits_would_be_garbage(build, run, reference, relative_error):
    module = build("t5")
    quantize_to_4_bit(module, tuple(linears(module)), quant_type="nf4")
    assert relative_error(run("t5", module), reference("t5")) > 1.0
    assert not [
        path
        for path in Bitsandbytes().quantizable_layers(build("t5"), "nf4")
        if path.endswith("wo")
    ]


def test_t5_wo_in_int8_is_spared_by_t5_itself(quantized, reference, relative_error):
    made = quantized("t5", "bitsandbytes:int8")
    assert sum(path.endswith(".wo") for path in made.result.layers) == 2
    assert relative_error(made.output, reference("t5")) < 0.05


@pytest.mark.parametrize("runs_before_moving", [False, True])
def test_int8_scales_follow_a_moved_model(build, run, quantized, runs_before_moving):
    made = quantized("clip", "bitsandbytes:int8")
    module = build("clip")
    recipe = Bitsandbytes().recipe("int8")
    recipe.function(module, made.result.layers, **recipe.arguments)
    if runs_before_moving:
        run("clip", module)
    before = held_bytes(module)
    module._apply(lambda tensor: tensor.clone())  # what .to(device) does, without another device
    assert held_bytes(module) == before
    layer = module.get_submodule(made.result.layers[0])
    codes = layer.weight.CB if layer.weight.CB is not None else layer.state.CB
    assert codes.data_ptr() == layer.weight.data_ptr()
    assert torch.equal(run("clip", module), made.output)


def test_odd_widths_are_left_alone_in_4_bits():
    module = torch.nn.Sequential(torch.nn.Linear(65, 64), torch.nn.Linear(64, 65))
    assert Bitsandbytes().quantizable_layers(module, "nf4") == ("1",)
    assert Bitsandbytes().quantizable_layers(module, "int8") == ("0", "1")


def test_unavailable_device_names_the_ones_it_has():
    assert "mps" in Bitsandbytes().unavailable("nf4", "mps")
    assert Bitsandbytes().unavailable("nf4", "cuda") is None
