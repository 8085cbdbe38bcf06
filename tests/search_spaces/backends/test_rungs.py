"""What is off by default, or called pointless, is so on weights that are distributed normally."""

from __future__ import annotations

import pytest
import torch

from autoquant.search_spaces import backends
from autoquant.storage import weight_bytes


@pytest.fixture(scope="module")
def rung():
    """Bits per weight and relative error of a wide layer under a scheme."""

    def measure(scheme: str) -> tuple[float, float]:
        name, precision = scheme.split(":")
        owner = backends.backend(name)
        if (reason := owner.unavailable(precision, "cpu")) is not None:
            pytest.skip(reason)
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Linear(1024, 256, bias=False)).to(torch.bfloat16)
        module[0].weight.data.normal_(std=0.02)
        inputs = torch.randn(64, 1024).to(torch.bfloat16)
        with torch.no_grad():
            expected = module(inputs).float()
            recipe = owner.recipe(precision)
            recipe.function(module, ("0",), **recipe.arguments)
            error = (module(inputs).float() - expected).norm() / expected.norm()
        return weight_bytes(module[0]) * 8 / (1024 * 256), float(error)

    return measure


@pytest.mark.parametrize(
    ("off", "instead"),
    [
        ("bitsandbytes:fp4", "bitsandbytes:nf4"),
        ("layerwise:float8_e5m2", "layerwise:float8_e4m3fn"),
        ("sdnq:float8_e4m3fn", "sdnq:int8"),
        ("sdnq:int4", "gguf:Q4_0"),
        ("torchao:int8dq", "torchao:int8wo"),
    ],
)
def test_another_scheme_has_less_error_in_as_few_bits(rung, off, instead):
    bits, error = rung(off)
    bits_instead, error_instead = rung(instead)
    assert bits_instead <= bits
    assert 1.15 * error_instead < error


@pytest.mark.parametrize(("off", "below"), [("gguf:Q5_1", "gguf:Q5_0"), ("gguf:Q4_1", "gguf:Q4_0")])
def test_a_rung_between_others_gains_a_tenth(rung, off, below):
    bits, error = rung(off)
    bits_below, error_below = rung(below)
    assert bits == bits_below + 0.5
    assert 0.05 < 1 - error / error_below < 0.2
