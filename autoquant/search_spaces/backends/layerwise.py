"""diffusers' layerwise casting: float8 storage, cast to the compute dtype for each forward."""

# No `from __future__ import annotations`: the recipes are copied into scripts that may not have it.
from collections.abc import Mapping
from typing import TYPE_CHECKING

from autoquant.search_spaces.backends.base import Recipe, require_precision
from autoquant.search_spaces.linears import dtype_sensitive, plain_linears

if TYPE_CHECKING:
    import torch


class Layerwise:
    """Needs no library beside diffusers; a plain cast, so no scales and no extra bytes."""

    name = "layerwise"
    precisions: Mapping[str, float] = {"float8_e4m3fn": 8.0, "float8_e5m2": 8.0}

    def unavailable(self, precision: str, device_type: str) -> str | None:
        """Say why ``precision`` cannot run on ``device_type``; None if it can."""
        require_precision(self.name, self.precisions, precision)
        if device_type == "mps":
            return "mps has no float8 tensors: use a cuda, xpu or cpu device"
        return None

    def quantizable_layers(self, module: "torch.nn.Module", precision: str) -> tuple[str, ...]:
        """Paths that are safe to store as float8.

        Between forwards the weight reports float8: code that casts its activations to
        ``weight.dtype`` would feed float8 into a layer that has been cast up by then, and fail.
        """
        require_precision(self.name, self.precisions, precision)
        unsafe = dtype_sensitive(module).layers
        return tuple(path for path in plain_linears(module) if path not in unsafe)

    def recipe(self, precision: str) -> Recipe:
        """The function and arguments that quantize to ``precision``."""
        require_precision(self.name, self.precisions, precision)
        return Recipe(cast_layerwise, {"storage_dtype": precision})


def cast_layerwise(
    module: "torch.nn.Module", layers: tuple[str, ...], *, storage_dtype: str
) -> None:
    """Store exactly these linear layers in a float8 dtype, cast up while they run, in place."""
    import torch
    from diffusers.hooks import apply_layerwise_casting

    module.requires_grad_(False).eval()
    for path in layers:
        layer = module.get_submodule(path)
        apply_layerwise_casting(
            layer,
            storage_dtype=getattr(torch, storage_dtype),
            compute_dtype=layer.weight.dtype,
            skip_modules_pattern=None,
        )
