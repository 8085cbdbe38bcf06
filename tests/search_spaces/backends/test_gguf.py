from __future__ import annotations

import copy

import gguf
import numpy as np
import pytest
import torch

from autoquant.errors import BackendUnavailable
from autoquant.search_spaces.backends.gguf import _ONLY_FROM_FILES, Gguf, quantize_to_gguf
from autoquant.search_spaces.linears import linears
from autoquant.storage import weight_bytes


@pytest.mark.parametrize("precision", Gguf.precisions)
def test_bytes_are_whole_blocks(quantized, precision):
    numbers, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[precision]]
    made = quantized("flux", f"gguf:{precision}")
    for path in made.result.layers:
        layer = made.module.get_submodule(path)
        expected = layer.in_features * layer.out_features // numbers * block_bytes
        assert weight_bytes(layer) == expected


@pytest.mark.parametrize("precision", Gguf.precisions)
def test_diffusers_unpacks_what_gguf_packed(precision):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(64, 32, bias=False)).to(torch.bfloat16)
    kind = gguf.GGMLQuantizationType[precision]
    blocks = gguf.quants.quantize(module[0].weight.detach().float().numpy(), kind)
    expected = torch.from_numpy(gguf.quants.dequantize(blocks, kind)).to(torch.bfloat16)
    quantize_to_gguf(module, ("0",), quant_type=precision)
    unpacked = module(torch.eye(64, dtype=torch.bfloat16)).T
    assert torch.allclose(unpacked, expected, atol=2**-8)  # a bfloat16 step at the largest weight


@pytest.mark.parametrize("precision", _ONLY_FROM_FILES)
def test_what_cannot_be_made_is_refused_with_the_reason(precision):
    for refuse in (
        Gguf().recipe,
        lambda name: Gguf().unavailable(name, "cpu"),
        lambda name: Gguf().quantizable_layers(torch.nn.Linear(1, 1), name),
    ):
        with pytest.raises(BackendUnavailable, match=r"llama-quantize.*Q8_0"):
            refuse(precision)


@pytest.mark.parametrize("precision", _ONLY_FROM_FILES)
@pytest.mark.xfail(raises=NotImplementedError, reason="gguf 0.19 cannot make it")
def test_the_package_makes_super_blocks(precision):
    weight = np.ones((1, 256), dtype=np.float32)
    gguf.quants.quantize(weight, gguf.GGMLQuantizationType[precision])


def test_rows_of_broken_blocks_are_left_alone():
    module = torch.nn.Sequential(torch.nn.Linear(96, 64), torch.nn.Linear(80, 64))
    assert Gguf().quantizable_layers(module, "Q8_0") == ("0",)


@pytest.mark.xfail(raises=RuntimeError, reason="T5 casts to the dtype of wo.weight, here uint8")
def test_t5_wo_could_be_quantized(build, run):
    module = build("t5")
    quantize_to_gguf(module, tuple(linears(module)), quant_type="Q8_0")
    run("t5", module)


@pytest.mark.xfail(raises=(KeyError, RuntimeError), reason="diffusers 0.42: GGUFParameter")
def test_a_quantized_model_can_be_copied(quantized, run):
    made = quantized("clip", "gguf:Q8_0")
    assert torch.equal(run("clip", copy.deepcopy(made.module)), made.output)
