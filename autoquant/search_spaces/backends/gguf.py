"""GGUF: the block formats of llama.cpp, made in memory by the gguf package, run by diffusers."""

# No `from __future__ import annotations`: the recipes are copied into scripts that may not have it.
from collections.abc import Mapping
from typing import TYPE_CHECKING

from autoquant.errors import BackendUnavailable
from autoquant.search_spaces.backends.base import Recipe, not_installed, require_precision
from autoquant.search_spaces.linears import dtype_sensitive, plain_linears

if TYPE_CHECKING:
    import torch

# Weights in one block of a format without super-blocks (gguf constants.py, GGML_QUANT_SIZES).
_BLOCK = 32

# What diffusers can run from a file but the gguf package cannot make: its quantizers for these
# raise NotImplementedError (gguf 0.19 quants.py; diffusers quantizers/gguf/utils.py,
# SUPPORTED_GGUF_QUANT_TYPES).
_ONLY_FROM_FILES = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS")


class Gguf:
    """A float16 scale, and for the ``_1`` formats a float16 minimum, a block of 32 weights."""

    name = "gguf"
    precisions: Mapping[str, float] = {
        "Q8_0": 8.0,
        "Q5_1": 5.0,
        "Q5_0": 5.0,
        "Q4_1": 4.0,
        "Q4_0": 4.0,
    }

    def unavailable(self, precision: str, device_type: str) -> str | None:
        """Say why ``precision`` cannot run on ``device_type``; None if it can.

        The weights are unpacked by plain tensor operations, which every device has.
        """
        self._require(precision)
        return not_installed("gguf", "0.10", "gguf")

    def quantizable_layers(self, module: "torch.nn.Module", precision: str) -> tuple[str, ...]:
        """Paths of the linear layers whose rows are whole blocks.

        The weight reports uint8, so layers whose dtype the model's code reads are left alone.
        """
        self._require(precision)
        unsafe = dtype_sensitive(module).layers
        return tuple(
            path
            for path, layer in plain_linears(module).items()
            if path not in unsafe and layer.in_features % _BLOCK == 0
        )

    def recipe(self, precision: str) -> Recipe:
        """The function and arguments that quantize to ``precision``."""
        self._require(precision)
        return Recipe(quantize_to_gguf, {"quant_type": precision})

    def stored_precision(self, layer: "torch.nn.Module") -> str | None:
        """The block format of the weight; None for a plain tensor."""
        name = getattr(getattr(layer.weight, "quant_type", None), "name", None)
        return name if isinstance(name, str) else None

    def _require(self, precision: str) -> None:
        if precision in _ONLY_FROM_FILES:
            raise BackendUnavailable(
                f"{self.name}:{precision} can be run from a file but not made here: the gguf "
                "package has no quantizer for it, only llama.cpp's llama-quantize has. Use one of: "
                f"{', '.join(self.precisions)}."
            )
        require_precision(self.name, self.precisions, precision)


def quantize_to_gguf(
    module: "torch.nn.Module", layers: tuple[str, ...], *, quant_type: str
) -> None:
    """Quantize exactly these linear layers to a GGUF block format, in place."""
    import gguf
    import torch
    from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter

    kind = gguf.GGMLQuantizationType[quant_type]
    for path in layers:
        layer = module.get_submodule(path)
        weight = layer.get_parameter("weight").detach()
        blocks = gguf.quants.quantize(weight.float().cpu().numpy(), kind)
        quantized = GGUFLinear(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=weight.dtype,
            device="meta",
        )
        quantized.weight = GGUFParameter(
            torch.from_numpy(blocks).to(weight.device), quant_type=kind
        )
        quantized.bias = layer.bias
        parent_path, _, name = path.rpartition(".")
        setattr(module.get_submodule(parent_path), name, quantized)
    module.requires_grad_(False).eval()
