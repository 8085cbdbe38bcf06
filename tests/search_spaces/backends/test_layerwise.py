from __future__ import annotations

import pytest
import torch

from autoquant.search_spaces.backends.layerwise import Layerwise, cast_layerwise
from autoquant.search_spaces.linears import linears


def test_casting_t5_wo_would_fail_in_the_forward(build, run):
    module = build("t5")
    cast_layerwise(module, tuple(linears(module)), storage_dtype="float8_e4m3fn")
    with pytest.raises(RuntimeError, match="dtype"):
        run("t5", module)


def test_norm_projections_are_cast_too(quantized):
    made = quantized("flux", "layerwise:float8_e4m3fn")
    assert "transformer_blocks.0.norm1.linear" in made.result.layers


def test_weights_are_stored_small_again_after_a_forward(quantized):
    made = quantized("t5", "layerwise:float8_e5m2")
    for path in made.result.layers:
        assert made.module.get_submodule(path).weight.dtype == torch.float8_e5m2


def test_mps_has_no_float8():
    assert "float8" in Layerwise().unavailable("float8_e4m3fn", "mps")
