"""A backend: int8 weights with one scale a row, in plain torch."""

# No `from __future__ import annotations`: the recipe is copied into scripts that may not have it.
from collections.abc import Mapping
from typing import TYPE_CHECKING

from autoquant.search_spaces.backends.base import Recipe, require_precision
from autoquant.search_spaces.linears import plain_linears

if TYPE_CHECKING:
    import torch


class Rowwise:
    """Symmetric int8 rows; the weight is unpacked for each call."""

    name = "rowwise"
    precisions: Mapping[str, float] = {"int8": 8.0}

    def unavailable(self, precision: str, device_type: str) -> str | None:
        """Every device of torch can do this."""
        require_precision(self.name, self.precisions, precision)
        return None

    def quantizable_layers(self, module: "torch.nn.Module", precision: str) -> tuple[str, ...]:
        """Every plain linear layer."""
        require_precision(self.name, self.precisions, precision)
        return tuple(plain_linears(module))

    def recipe(self, precision: str) -> Recipe:
        """The function that quantizes, and its arguments."""
        require_precision(self.name, self.precisions, precision)
        return Recipe(quantize_rowwise, {"levels": 127})


def quantize_rowwise(module: "torch.nn.Module", layers: tuple[str, ...], *, levels: int) -> None:
    """Quantize exactly these linear layers, in place."""
    import torch

    class RowwiseLinear(torch.nn.Module):
        def __init__(self, layer: torch.nn.Linear) -> None:
            super().__init__()
            rows = layer.weight.detach().float()
            scale = (rows.abs().amax(dim=1, keepdim=True) / levels).clamp(min=1e-12)
            self.in_features, self.out_features = layer.in_features, layer.out_features
            self.register_buffer("rows", (rows / scale).round().to(torch.int8))
            self.register_buffer("scale", scale.to(layer.weight.dtype))
            self.bias = layer.bias

        @property
        def weight(self) -> torch.Tensor:
            return self.rows.to(self.scale.dtype) * self.scale

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.linear(states, self.weight, self.bias)

    for path in layers:
        parent, _, name = path.rpartition(".")
        setattr(module.get_submodule(parent), name, RowwiseLinear(module.get_submodule(path)))
