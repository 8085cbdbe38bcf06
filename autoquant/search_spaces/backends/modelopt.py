"""NVIDIA ModelOpt: integers, compressed in memory and unpacked as they are used."""

# No `from __future__ import annotations`: the recipes are copied into scripts that may not have it.
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autoquant.search_spaces.backends.base import Recipe, not_installed, require_precision
from autoquant.search_spaces.linears import dtype_sensitive, plain_linears

if TYPE_CHECKING:
    import torch

_BITS = {"int8": 8, "int4": 4}
_DEVICES = ("cpu", "cuda")

# int4 is scaled in blocks; the largest of 128, 64, 32 and 16 weights that divides the row.
_SMALLEST_BLOCK = 16


class Modelopt:
    """A scale a row (8 bits) or a block (4 bits); the maximum it was made from is kept beside it.

    Float8 weights would make models report float8 (see ``sdnq``), so they are not offered; NVFP4 is
    quantized on a CUDA device only, and has not been run.
    """

    name = "modelopt"
    precisions: Mapping[str, float] = {"int8": 8.0, "int4": 4.0}

    def unavailable(self, precision: str, device_type: str) -> str | None:
        """Say why ``precision`` cannot run on ``device_type``; None if it can."""
        require_precision(self.name, self.precisions, precision)
        missing = not_installed("nvidia-modelopt", "0.47", "modelopt")
        if missing is None and device_type not in _DEVICES:
            return f"modelopt is made for cuda and runs on cpu, not on {device_type}"
        return missing

    def quantizable_layers(self, module: "torch.nn.Module", precision: str) -> tuple[str, ...]:
        """Paths that are safe to store as bytes, with rows of whole blocks for int4.

        The weight reports the dtype it is stored in, so layers whose dtype the model's code reads
        are left alone, unless the model has a branch of its own for int8.
        """
        require_precision(self.name, self.precisions, precision)
        sensitive = dtype_sensitive(module)
        tolerated = sensitive.tolerate_int8 if precision == "int8" else frozenset[str]()
        unsafe = sensitive.layers - tolerated
        return tuple(
            path
            for path, layer in plain_linears(module).items()
            if path not in unsafe
            and (precision == "int8" or layer.in_features % _SMALLEST_BLOCK == 0)
        )

    def recipe(self, precision: str) -> Recipe:
        """The function and arguments that quantize to ``precision``."""
        require_precision(self.name, self.precisions, precision)
        return Recipe(quantize_with_modelopt, {"bits": _BITS[precision]})


def quantize_with_modelopt(module: "Any", layers: tuple[str, ...], *, bits: int) -> None:
    """Quantize exactly these linear layers with NVIDIA ModelOpt, in place."""
    import modelopt.torch.quantization as mtq
    import torch

    for path in layers:
        layer = module.get_submodule(path)
        if bits == 4:
            block = next(size for size in (128, 64, 32, 16) if layer.in_features % size == 0)
            weight = {"num_bits": 4, "block_sizes": {-1: block, "type": "static"}}
        else:
            weight = {"num_bits": 8, "axis": 0}
        config = {
            "quant_cfg": [
                {"quantizer_name": "*", "enable": False},
                {"quantizer_name": "*weight_quantizer", "cfg": weight},
            ],
            "algorithm": "max",
        }
        # A model of its own for each layer: ModelOpt goes through all that it finds in one.
        alone = mtq.quantize(torch.nn.Sequential(layer), config)
        mtq.compress(alone)
        parent_path, _, name = path.rpartition(".")
        setattr(module.get_submodule(parent_path), name, alone[0])
    module.requires_grad_(False).eval()
