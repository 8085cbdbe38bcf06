from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from autoquant.planner.footprint.storage_formats import storage_format
from autoquant.search_spaces.backends.sdnq import Sdnq, quantize_with_sdnq
from autoquant.storage import weight_bytes
from tests.families import modern

# Bits a weight beside the payload, of a layer 1024 wide: float32 scales of groups of 1024, 256 and
# 64 weights, and as many minima for unsigned integers.
SCALE_BITS = {"int8": 32 / 1024, "float8_e4m3fn": 32 / 1024, "int6": 0.125, "uint4": 1, "int4": 0.5}


@pytest.mark.parametrize("precision", Sdnq.precisions)
def test_bytes_are_payload_and_scales(precision):
    module = torch.nn.Sequential(torch.nn.Linear(1024, 64)).to(torch.bfloat16)
    quantize_with_sdnq(module, ("0",), weights_dtype=precision)
    bits = Sdnq.precisions[precision] + SCALE_BITS[precision]
    assert weight_bytes(module[0]) == 1024 * 64 * bits / 8


@pytest.mark.parametrize("precision", Sdnq.precisions)
def test_uneven_widths_compute(precision, relative_error):
    torch.manual_seed(0)
    for width in (50, 66, 72, 100, 131, 1000):
        module = torch.nn.Sequential(torch.nn.Linear(width, 36)).to(torch.bfloat16)
        assert Sdnq().quantizable_layers(module, precision) == ("0",)
        inputs = torch.randn(8, width).to(torch.bfloat16)
        with torch.no_grad():
            expected = module(inputs)
            quantize_with_sdnq(module, ("0",), weights_dtype=precision)
            error = relative_error(module(inputs).float(), expected.float())
        assert error < (0.05 if Sdnq.precisions[precision] > 4 else 0.2), width


@pytest.mark.parametrize("precision", Sdnq.precisions)
@pytest.mark.parametrize("width", [50, 100, 384, 1000, 1088, 3072])
def test_the_footprint_knows_the_groups(precision, width):
    module = torch.nn.Sequential(torch.nn.Linear(width, 36)).to(torch.bfloat16)
    quantize_with_sdnq(module, ("0",), weights_dtype=precision)
    assert weight_bytes(module[0]) == storage_format(f"sdnq:{precision}").weight_bytes(36, width, 2)


def test_its_list_of_skipped_layers_is_off(quantized):
    layers = quantized("flux", "sdnq:int8").result.layers
    assert {"proj_out", "x_embedder", "transformer_blocks.0.norm1.linear"} <= set(layers)


def test_t5_wo_is_spared_but_for_int8(build):
    for precision in Sdnq.precisions:
        layers = Sdnq().quantizable_layers(build("t5"), precision)
        assert any(path.endswith(".wo") for path in layers) == (precision == "int8")


@pytest.mark.parametrize("precision", Sdnq.precisions)
def test_a_model_without_biases_reports_the_dtype_that_it_computes_in(precision):
    # FLUX.2 casts its latents to what the transformer reports.
    pipeline = modern.flux_2_klein()
    transformer = pipeline.transformer.to(torch.bfloat16).eval()
    layers = Sdnq().quantizable_layers(transformer, precision)
    quantize_with_sdnq(transformer, layers, weights_dtype=precision)
    assert transformer.dtype == torch.bfloat16
    with torch.no_grad():
        image = torch.randn(1, 16, 16).to(transformer.dtype)
        text = torch.randn(1, 8, transformer.config.joint_attention_dim).to(torch.bfloat16)
        output = transformer(
            image, text, torch.tensor([0.5]), torch.zeros(16, 4), torch.zeros(8, 4)
        ).sample
    assert output.isfinite().all()


def test_nothing_is_compiled_on_a_cpu():
    program = (
        "import torch\n"
        "from autoquant.search_spaces.backends.sdnq import quantize_with_sdnq\n"
        "quantize_with_sdnq(torch.nn.Sequential(torch.nn.Linear(64, 64)), ('0',),"
        " weights_dtype='int8')\n"
        "from sdnq.common import use_torch_compile\n"
        "print(torch.accelerator.is_available() or not use_torch_compile)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "True"


def test_what_others_compile_keeps_its_limits():
    program = (
        "import torch\n"
        "from torch._dynamo import config\n"
        "before = config.recompile_limit, config.accumulated_recompile_limit\n"
        "from autoquant.search_spaces.backends.sdnq import quantize_with_sdnq\n"
        "quantize_with_sdnq(torch.nn.Sequential(torch.nn.Linear(64, 64)), ('0',),"
        " weights_dtype='int8')\n"
        "from sdnq.common import use_torch_compile\n"
        "after = config.recompile_limit, config.accumulated_recompile_limit\n"
        "print(use_torch_compile and before == after)\n"
    )
    compiling = {**os.environ, "SDNQ_USE_TORCH_COMPILE": "1"}  # as SDNQ does where there is a card
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=compiling
    )
    assert done.stdout.strip() == "True"
