"""torchao: weight-only int8 and float8."""

# No `from __future__ import annotations`: the recipes are copied into scripts that may not have it.
from collections.abc import Mapping
from typing import TYPE_CHECKING

from autoquant.search_spaces.backends.base import Recipe, not_installed, require_precision
from autoquant.search_spaces.linears import plain_linears

if TYPE_CHECKING:
    import torch


class Torchao:
    """One scale a row; the weight still reports the compute dtype, so no model code is misled."""

    name = "torchao"
    precisions: Mapping[str, float] = {"int8wo": 8.0, "float8wo": 8.0}

    def unavailable(self, precision: str, device_type: str) -> str | None:
        """Say why ``precision`` cannot run on ``device_type``; None if it can."""
        require_precision(self.name, self.precisions, precision)
        missing = not_installed("torchao", "0.16", "torchao")
        if missing is None and precision == "float8wo" and device_type == "mps":
            return "mps has no float8 tensors: use torchao:int8wo, or a cuda, xpu or cpu device"
        return missing

    def quantizable_layers(self, module: "torch.nn.Module", precision: str) -> tuple[str, ...]:
        """Paths of all plain linear layers: rows of any width can be scaled."""
        require_precision(self.name, self.precisions, precision)
        return tuple(plain_linears(module))

    def recipe(self, precision: str) -> Recipe:
        """The function and arguments that quantize to ``precision``."""
        require_precision(self.name, self.precisions, precision)
        return Recipe(quantize_with_torchao, {"config": _CONFIGS[precision]})


_CONFIGS = {"int8wo": "Int8WeightOnlyConfig", "float8wo": "Float8WeightOnlyConfig"}


def quantize_with_torchao(
    module: "torch.nn.Module", layers: tuple[str, ...], *, config: str
) -> None:
    """Quantize exactly these linear layers with a weight-only torchao config, in place."""
    from torchao import quantization

    chosen = set(layers)
    # Without set_inductor_config=False the config changes torch.compile's settings for good.
    settings = getattr(quantization, config)(set_inductor_config=False)
    quantization.quantize_(module, settings, filter_fn=lambda _, path: path in chosen)
    module.requires_grad_(False).eval()
