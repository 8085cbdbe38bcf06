"""SDNQ, the quantization engine of SD.Next: integers and float8 in groups, on any device.

SDNQ is licensed under the GPL: it is called where a user has installed it, and nothing of it is
part of this package.
"""

# No `from __future__ import annotations`: the recipes are copied into scripts that may not have it.
from collections.abc import Mapping
from typing import TYPE_CHECKING

from autoquant.search_spaces.backends.base import Recipe, not_installed, require_precision
from autoquant.search_spaces.linears import dtype_sensitive, plain_linears

if TYPE_CHECKING:
    import torch

# How many weights of a format are packed into whole bytes together (sdnq/packed_int/pack.py).
_PACKED_TOGETHER = {"int6": 4, "uint4": 2, "int4": 2}


class Sdnq:
    """Float32 scales; a group is 1024 weights at 8 bits, 256 at 6 and 64 at 4."""

    name = "sdnq"
    precisions: Mapping[str, float] = {
        "int8": 8.0,
        "float8_e4m3fn": 8.0,
        "int6": 6.0,
        "uint4": 4.0,
        "int4": 4.0,
    }

    def unavailable(self, precision: str, device_type: str) -> str | None:
        """Say why ``precision`` cannot run on ``device_type``; None if it can."""
        require_precision(self.name, self.precisions, precision)
        missing = not_installed("sdnq", "0.2.5", "sdnq")
        if missing is None and precision == "float8_e4m3fn" and device_type == "mps":
            return "mps has no float8 tensors: use sdnq:int8, or a cuda, xpu or cpu device"
        return missing

    def quantizable_layers(self, module: "torch.nn.Module", precision: str) -> tuple[str, ...]:
        """Paths that are safe to store as bytes.

        The weight reports the dtype it is stored in, so layers whose dtype the model's code reads
        are left alone, unless the model has a branch of its own for int8.
        """
        require_precision(self.name, self.precisions, precision)
        sensitive = dtype_sensitive(module)
        tolerated = sensitive.tolerate_int8 if precision == "int8" else frozenset[str]()
        unsafe = sensitive.layers - tolerated
        together = _PACKED_TOGETHER.get(precision, 1)
        return tuple(
            path
            for path, layer in plain_linears(module).items()
            if path not in unsafe and layer.weight.numel() % together == 0
        )

    def recipe(self, precision: str) -> Recipe:
        """The function and arguments that quantize to ``precision``."""
        require_precision(self.name, self.precisions, precision)
        return Recipe(quantize_with_sdnq, {"weights_dtype": precision})

    def stored_precision(self, layer: "torch.nn.Module") -> str | None:
        """The dtype that SDNQ unpacks the weight from; None for a layer that is not SDNQ's."""
        name = getattr(getattr(layer, "sdnq_dequantizer", None), "weights_dtype", None)
        return name if isinstance(name, str) else None


def quantize_with_sdnq(
    module: "torch.nn.Module", layers: tuple[str, ...], *, weights_dtype: str
) -> None:
    """Quantize exactly these linear layers with SDNQ, in place."""
    import inspect
    import os

    import torch
    from torch._dynamo import config as compiler

    if not torch.accelerator.is_available():
        # On a CPU, SDNQ would compile each shape that it meets, for minutes; it reads the variable
        # when it is imported.
        os.environ.setdefault("SDNQ_USE_TORCH_COMPILE", "0")
    names = ("recompile_limit", "accumulated_recompile_limit")
    limits = {name: getattr(compiler, name) for name in names if hasattr(compiler, name)}
    import sdnq

    if "recompile_limit" in inspect.signature(torch.compile).parameters:
        # Its import lifts the limits of all that this process compiles; its own functions bring
        # theirs where torch takes them.
        for name, limit in limits.items():
            setattr(compiler, name, limit)
    for path in layers:
        # A config collects the names of the layers that it has seen, and add_skip_keys would leave
        # out layers by model class: a fresh one for each layer, without that list, is exact.
        config = sdnq.SDNQConfig(weights_dtype=weights_dtype, add_skip_keys=False)
        layer = module.get_submodule(path)
        compute_dtype = layer.weight.dtype
        quantized, _ = sdnq.sdnq_quantize_layer(layer, config, param_name=path)
        for name, tensor in list(quantized.named_parameters(recurse=False)):
            # A model reports the dtype of its first floating parameter, and pipelines cast latents
            # and prompts to it: float32 scales and float8 weights must not be parameters.
            if tensor.is_floating_point() and tensor.dtype != compute_dtype:
                delattr(quantized, name)
                quantized.register_buffer(name, tensor.data)
        parent_path, _, name = path.rpartition(".")
        setattr(module.get_submodule(parent_path), name, quantized)
    module.requires_grad_(False).eval()
