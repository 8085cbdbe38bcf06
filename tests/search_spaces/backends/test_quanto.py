from __future__ import annotations

import shutil

import pytest
import torch

from autoquant.search_spaces.backends.quanto import Quanto


def test_int4_needs_a_multiple_of_16_outputs():
    module = torch.nn.Sequential(torch.nn.Linear(128, 100), torch.nn.Linear(128, 112))
    assert Quanto().quantizable_layers(module, "int4") == ("1",)
    assert Quanto().quantizable_layers(module, "int2") == ("0", "1")


@pytest.mark.parametrize(
    ("width", "fitting"),
    [
        (64, ["int8", "int4", "int2", "float8"]),
        (72, ["int4", "int2", "float8"]),  # int8 kills the process on the CPU
        (200, ["float8"]),  # no group divides it, and it is no multiple of 16
        (208, ["int8", "float8"]),
        (256, ["int8", "int4", "int2", "float8"]),
    ],
)
def test_widths_that_kernels_and_groups_divide(width, fitting):
    module = torch.nn.Sequential(torch.nn.Linear(width, 64))
    assert fitting == [
        precision
        for precision in Quanto.precisions
        if Quanto().quantizable_layers(module, precision)
    ]


@pytest.mark.parametrize("precision", ["int8", "int4", "int2", "float8"])
def test_fitting_but_uneven_widths_compute(precision, relative_error):
    torch.manual_seed(0)
    widths = [width for width in (48, 72, 80, 96, 160, 208) if width != 72 or precision != "int8"]
    for width in widths:
        module = torch.nn.Sequential(torch.nn.Linear(width, 40)).to(torch.bfloat16)
        if not Quanto().quantizable_layers(module, precision):
            continue
        inputs = torch.randn(8, width).to(torch.bfloat16)
        with torch.no_grad():
            expected = module(inputs)
            recipe = Quanto().recipe(precision)
            recipe.function(module, ("0",), **recipe.arguments)
            error = relative_error(module(inputs).float(), expected.float())
        assert error < {"int8": 0.02, "float8": 0.06, "int4": 0.2, "int2": 0.6}[precision], width


@pytest.mark.parametrize(
    ("missing", "needed"), [("ninja", "pip install ninja"), ("c++", "C++ compiler")]
)
def test_packed_precisions_need_a_compiler(monkeypatch, missing, needed):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None if name == missing else f"/bin/{name}")
    for precision in ("int4", "int2"):
        reason = Quanto().unavailable(precision, "cpu")
        assert needed in reason
        assert "\n" not in reason
    assert Quanto().unavailable("int8", "cpu") is None
    assert Quanto().unavailable("float8", "cpu") is None


def test_cuda_kernels_need_nvcc(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setattr("autoquant.search_spaces.backends.quanto._CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "nvcc" else f"/bin/{name}")
    assert "nvcc" in Quanto().unavailable("float8", "cuda")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvcc").touch()
    assert Quanto().unavailable("float8", "cuda") is None
