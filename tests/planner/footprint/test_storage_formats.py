from __future__ import annotations

import pytest
import torch
from torch import nn

from autoquant.errors import BackendUnavailable
from autoquant.planner.footprint.storage_formats import storage_format
from autoquant.search_spaces.backends import backends
from autoquant.storage import weight_bytes

SHAPES = [(512, 512), (768, 128), (96, 1152), (64, 36), (128, 96), (160, 224), (48, 4304)]
SCHEMES = [
    f"{name}:{precision}"
    for name, backend in backends().items()
    for precision in backend.precisions
    if backend.unavailable(precision, "cpu") is None
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_bytes_are_those_of_really_quantized_layers(scheme: str, dtype: torch.dtype) -> None:
    name, _, precision = scheme.partition(":")
    backend = backends()[name]
    for rows, columns in SHAPES:
        module = nn.Sequential(nn.Linear(columns, rows)).to(dtype)
        layers = backend.quantizable_layers(module, precision)
        storage = storage_format(scheme)
        assert bool(layers) == storage.fits(rows, columns), (rows, columns)
        if layers:
            recipe = backend.recipe(precision)
            recipe.function(module, layers, **recipe.arguments)
            expected = storage.weight_bytes(rows, columns, dtype.itemsize)
            assert weight_bytes(module[0]) == expected, (rows, columns)


def test_k_quants_have_the_bits_per_weight_of_llama_cpp() -> None:
    # https://github.com/ggml-org/llama.cpp/blob/master/tools/quantize/README.md
    known = {"Q2_K": 2.625, "Q3_K": 3.4375, "Q4_K": 4.5, "Q5_K": 5.5, "Q6_K": 6.5625, "Q8_0": 8.5}
    assert {name: storage_format(f"gguf:{name}").bits for name in known} == known


def test_tinygemm_pads_columns_to_1024_and_rows_to_8() -> None:
    padded = storage_format("torchao:int4wo").weight_bytes(1024, 1024, 2)
    assert storage_format("torchao:int4wo").weight_bytes(1023, 640, 2) == padded
    assert padded == 1024 * 1024 // 2 + 1024 * 1024 // 128 * 4


def test_an_unknown_scheme_is_named_with_the_known_ones() -> None:
    with pytest.raises(BackendUnavailable, match=r"torchao:int3.*torchao:int8wo"):
        storage_format("torchao:int3")
