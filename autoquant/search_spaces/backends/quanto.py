"""optimum-quanto: int8, int4, int2 and float8 weights."""

# No `from __future__ import annotations`: the recipes are copied into scripts that may not have it.
import importlib.util
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from autoquant.search_spaces.backends.base import Recipe, not_installed, require_precision
from autoquant.search_spaces.linears import plain_linears

if TYPE_CHECKING:
    import torch

_QTYPES = {"int8": "qint8", "int4": "qint4", "int2": "qint2", "float8": "qfloat8"}
_PACKED = ("int4", "int2")

# quanto looks for a group of 128, 96, 64 or 32 weights that divides the width; a width of at most
# 128 is one group. Where none divides, it silently scales whole rows (quanto nn/qmodule.py).
_LARGEST_GROUP = 128
_SMALLEST_GROUP = 32

# torch._weight_int8pack_mm, which quanto calls on the CPU, reads past the row and kills the process
# for bfloat16 rows that are not a multiple of 16 (torch 2.14, AVX512).
_INT8_WIDTH = 16

# torch._convert_weight_to_int4pack_for_cpu, which quanto calls on the CPU, takes no other number of
# outputs ("expect N to be dividable by 16", torch 2.14).
_INT4_OUTPUTS = 16


_CUDA_HOME = "/usr/local/cuda"


class Quanto:
    """Per-row scales for 8 bits, per-group scales and shifts for 4 and 2 bits."""

    name = "quanto"
    precisions: Mapping[str, float] = {"int8": 8.0, "int4": 4.0, "int2": 2.0, "float8": 8.0}

    def unavailable(self, precision: str, device_type: str) -> str | None:
        """Say why ``precision`` cannot run on ``device_type``; None if it can."""
        require_precision(self.name, self.precisions, precision)
        missing = not_installed("optimum-quanto", "0.2.7", "quanto")
        if missing is not None:
            return missing
        if precision == "float8" and device_type == "mps":
            return "mps has no float8 tensors: use quanto:int8, or a cuda, xpu or cpu device"
        if precision in _PACKED or (precision == "float8" and device_type == "cuda"):
            return _cannot_compile(precision, device_type)
        return None

    def quantizable_layers(self, module: "torch.nn.Module", precision: str) -> tuple[str, ...]:
        """Paths of the plain linear layers whose width quanto's kernels and groups divide."""
        require_precision(self.name, self.precisions, precision)
        return tuple(
            path for path, layer in plain_linears(module).items() if _shape_fits(layer, precision)
        )

    def recipe(self, precision: str) -> Recipe:
        """The function and arguments that quantize to ``precision``."""
        require_precision(self.name, self.precisions, precision)
        return Recipe(quantize_with_quanto, {"qtype": _QTYPES[precision]})

    def stored_precision(self, layer: "torch.nn.Module") -> str | None:
        """The type of the weight, without the variant that float8 has; None for a plain tensor."""
        name = str(getattr(getattr(layer.weight, "qtype", None), "name", ""))
        return next((key for key, qtype in _QTYPES.items() if name.startswith(qtype)), None)


def quantize_with_quanto(module: "torch.nn.Module", layers: tuple[str, ...], *, qtype: str) -> None:
    """Quantize exactly these linear layers with optimum-quanto, in place."""
    import torch
    from optimum import quanto

    card = torch.accelerator.current_accelerator(check_available=True)
    for path in layers:
        layer = module.get_submodule(path)
        if qtype == "qint4" and card is not None:
            # int4 is packed for the device it is made on. Moved, it is unpacked by a product with
            # an identity matrix, which takes a CPU minutes for a large model.
            layer.to(card)
        quantized = quanto.QLinear.from_module(layer, weights=getattr(quanto, qtype))
        quantized.freeze()
        parent_path, _, name = path.rpartition(".")
        setattr(module.get_submodule(parent_path), name, quantized)
    module.requires_grad_(False).eval()


def _shape_fits(layer: "torch.nn.Linear", precision: str) -> bool:
    width = layer.in_features
    if precision == "int4" and layer.out_features % _INT4_OUTPUTS:
        return False
    if precision in _PACKED:
        return width <= _LARGEST_GROUP or width % _SMALLEST_GROUP == 0
    return precision != "int8" or width % _INT8_WIDTH == 0


def _cannot_compile(precision: str, device_type: str) -> str | None:
    """Say why quanto could not compile its kernel, which it does on first use."""
    needs = f"quanto {precision} compiles a kernel on first use and needs"
    if shutil.which("ninja") is None:
        return f"{needs} ninja on the PATH: pip install ninja"
    if importlib.util.find_spec("setuptools") is None:
        return f"{needs} setuptools: pip install setuptools"
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        return f"{needs} a C++ compiler: install g++, or set CXX"
    if device_type == "cuda" and not _has_nvcc():
        return f"{needs} nvcc on {device_type}: install the CUDA toolkit and set CUDA_HOME"
    return None


def _has_nvcc() -> bool:
    # The places where torch.utils.cpp_extension looks.
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), _CUDA_HOME]
    return shutil.which("nvcc") is not None or any(
        home is not None and (Path(home) / "bin" / "nvcc").exists() for home in homes
    )
