from __future__ import annotations

import pytest
import torch
import torch._inductor.config as inductor

from autoquant.search_spaces.backends.torchao import (
    Torchao,
    quantize_to_dynamic_float8,
    quantize_to_int4,
)

ON_CPU = [
    precision for precision in Torchao.precisions if not Torchao().unavailable(precision, "cpu")
]


def test_global_compiler_settings_stay(build):
    before = inductor.get_config_copy()
    for precision in ON_CPU:
        module = build("clip")
        recipe = Torchao().recipe(precision)
        recipe.function(module, Torchao().quantizable_layers(module, precision), **recipe.arguments)
    assert inductor.get_config_copy() == before


def test_float8_needs_another_device_than_mps():
    assert "float8" in Torchao().unavailable("float8wo", "mps")
    assert Torchao().unavailable("int8wo", "mps") is None


def test_the_cpu_has_what_needs_no_kernel_of_a_card():
    assert ON_CPU == ["int8wo", "float8wo", "int8dq"]
    assert "torchao:float8wo" in Torchao().unavailable("float8dq", "cpu")
    assert "bitsandbytes:nf4" in Torchao().unavailable("int4wo", "xpu")


@pytest.mark.parametrize(
    ("width", "height", "fitting"),
    [
        (384, 16, ["int8wo", "float8wo", "int8dq", "float8dq", "int4wo"]),
        (256, 16, ["int8wo", "float8wo", "int8dq", "float8dq"]),  # padded to 1024 columns
        (400, 16, ["int8wo", "float8wo", "int8dq", "float8dq"]),  # no whole groups of 128
        (256, 24, ["int8wo", "float8wo", "int8dq"]),  # no whole blocks of 16
    ],
)
def test_shapes_that_kernels_take(width, height, fitting):
    module = torch.nn.Sequential(torch.nn.Linear(width, height))
    assert fitting == [
        precision
        for precision in Torchao.precisions
        if Torchao().quantizable_layers(module, precision)
    ]


@pytest.mark.skipif(torch.accelerator.is_available(), reason="has the kernels, or may have")
@pytest.mark.parametrize(
    "quantize",
    [
        pytest.param(
            quantize_to_dynamic_float8,
            marks=pytest.mark.xfail(
                raises=(AssertionError, RuntimeError),
                reason="torchao 0.18: needs CUDA of compute capability 8.9, MI300 or XPU",
            ),
        ),
        pytest.param(
            lambda module, layers: quantize_to_int4(module, layers, group_size=128),
            marks=pytest.mark.xfail(
                raises=RuntimeError, reason="torchao 0.18: the tinygemm layout is made on CUDA"
            ),
        ),
    ],
)
def test_precisions_of_cards_run_on_the_cpu(quantize):
    module = torch.nn.Sequential(torch.nn.Linear(512, 64)).to(torch.bfloat16)
    quantize(module, ("0",))
    assert module(torch.randn(2, 512).to(torch.bfloat16)).isfinite().all()
