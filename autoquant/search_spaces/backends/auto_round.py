"""AutoRound without calibration: rounding to nearest, with its search for scales on a card.

Tuned rounding, and weights by importance, need data; a model that was made with them elsewhere is
loaded by ``checkpoint``.
"""

# No `from __future__ import annotations`: the recipes are copied into scripts that may not have it.
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autoquant.search_spaces.backends.base import Recipe, not_installed, require_precision
from autoquant.search_spaces.linears import dtype_sensitive, plain_linears

if TYPE_CHECKING:
    import torch

_BITS = {"int4": 4, "int3": 3, "int2": 2}

# Codes and zero points are packed into words of 32 bits along rows and columns
# (auto_round_extension/torch/qlinear_torch.py); it is also the smallest group.
_PACKED_TOGETHER = 32


class AutoRound:
    """A scale for each 128, 64 or 32 weights of a row, the most that divide it.

    Eight bits are not offered: they would be unpacked at each call too, and save nothing against
    other backends.
    """

    name = "auto-round"
    precisions: Mapping[str, float] = {name: float(bits) for name, bits in _BITS.items()}

    def unavailable(self, precision: str, device_type: str) -> str | None:
        """Say why ``precision`` cannot run on ``device_type``; None if it can."""
        require_precision(self.name, self.precisions, precision)
        return not_installed("auto-round", "0.16", "auto-round")

    def quantizable_layers(self, module: "torch.nn.Module", precision: str) -> tuple[str, ...]:
        """Paths of layers that are whole words wide and high.

        What takes their place has no weight, so layers whose dtype the model's code reads are left
        alone.
        """
        require_precision(self.name, self.precisions, precision)
        unsafe = dtype_sensitive(module).layers
        return tuple(
            path
            for path, layer in plain_linears(module).items()
            if path not in unsafe
            and layer.in_features % _PACKED_TOGETHER == layer.out_features % _PACKED_TOGETHER == 0
        )

    def recipe(self, precision: str) -> Recipe:
        """The function and arguments that quantize to ``precision``."""
        require_precision(self.name, self.precisions, precision)
        return Recipe(quantize_with_auto_round, {"bits": _BITS[precision]})

    def stored_precision(self, layer: "torch.nn.Module") -> str | None:
        """The bits of a packed layer's codes; None for a layer that is not packed."""
        return f"int{layer.bits}" if hasattr(layer, "qweight") else None


def quantize_with_auto_round(module: "Any", layers: tuple[str, ...], *, bits: int) -> None:
    """Quantize exactly these linear layers by AutoRound's rounding to nearest, in place.

    The search tries some two hundred scales for each group; a CPU core would take 24 s for a layer
    of 3072 x 3072, so without an accelerator the scale is that of the largest weight.
    """
    import torch
    from auto_round.data_type.int import quant_tensor_opt_rtn_sym, quant_tensor_rtn_sym
    from auto_round_extension.torch.qlinear_torch_zp import QuantLinear

    has_card = torch.accelerator.is_available()
    find_scales = quant_tensor_opt_rtn_sym if has_card else quant_tensor_rtn_sym
    for path in layers:
        layer = module.get_submodule(path)
        width, height = layer.in_features, layer.out_features
        weight, home = layer.weight, layer.weight.device
        fast = torch.accelerator.current_accelerator() if has_card else home
        group = next(size for size in (128, 64, 32) if width % size == 0)
        _, scales, zero = find_scales(
            weight.data.to(fast, torch.float32), bits=bits, group_size=group
        )
        # Loading a checkpoint casts scales to the compute dtype; what is measured is what it gives.
        scales = scales.reshape(height, -1).to(weight.dtype)
        packed = QuantLinear(bits, group, width, height, layer.bias is not None)
        packed.pack(layer, scales.to(home), zero, None, device=home)
        packed.scales = packed.scales.to(weight.dtype)
        if layer.bias is not None:
            packed.bias = layer.bias.data
        packed.in_features, packed.out_features = width, height
        parent_path, _, name = path.rpartition(".")
        setattr(module.get_submodule(parent_path), name, packed.to(home))
    module.requires_grad_(False).eval()
