"""torchao: int8, float8 and int4 weights, and int8 and float8 activations quantized on the fly."""

# No `from __future__ import annotations`: the recipes are copied into scripts that may not have it.
from collections.abc import Mapping
from typing import TYPE_CHECKING

from autoquant.search_spaces.backends.base import Recipe, not_installed, require_precision
from autoquant.search_spaces.linears import plain_linears

if TYPE_CHECKING:
    import torch

_CONFIGS = {
    "int8wo": "Int8WeightOnlyConfig",
    "float8wo": "Float8WeightOnlyConfig",
    "int8dq": "Int8DynamicActivationInt8WeightConfig",
}

# torch._scaled_mm takes float8 matrices of whole blocks of 16 (torchao quantization/utils.py,
# _fp8_mm_compat: other weights are skipped without a word).
_FLOAT8_BLOCK = 16

# The tinygemm kernel scales groups of 128 and pads rows to 1024 columns
# (int4_tile_packed_to_4d_tensor.py); below 384 columns the padding costs more than it saves.
_INT4_GROUP = 128
_INT4_LEAST_WIDTH = 384


class Torchao:
    """Scales a row or a group; the weight still reports the compute dtype: no code is misled."""

    name = "torchao"
    precisions: Mapping[str, float] = {
        "int8wo": 8.0,
        "float8wo": 8.0,
        "int8dq": 8.0,
        "float8dq": 8.0,
        "int4wo": 4.0,
    }

    def unavailable(self, precision: str, device_type: str) -> str | None:
        """Say why ``precision`` cannot run on ``device_type``; None if it can.

        Which cards have the kernels is written down in compatibility.yaml.
        """
        require_precision(self.name, self.precisions, precision)
        missing = not_installed("torchao", "0.16", "torchao")
        if missing is not None:
            return missing
        if precision in {"float8wo", "float8dq"} and device_type == "mps":
            return "mps has no float8 tensors: use torchao:int8wo, or a cuda, xpu or cpu device"
        if precision == "float8dq" and device_type not in {"cuda", "xpu"}:
            return (
                f"torchao float8dq multiplies float8 matrices, which {device_type} cannot: use "
                "torchao:float8wo, or a cuda device of compute capability 8.9 or xpu"
            )
        if precision == "int4wo" and device_type != "cuda":
            return (
                f"torchao int4wo has its kernel on cuda only, not on {device_type}: use "
                "bitsandbytes:nf4, quanto:int4 or gguf:Q4_0"
            )
        return None

    def quantizable_layers(self, module: "torch.nn.Module", precision: str) -> tuple[str, ...]:
        """Paths of the plain linear layers whose shape the precision's kernel takes."""
        require_precision(self.name, self.precisions, precision)
        return tuple(
            path
            for path, layer in plain_linears(module).items()
            if _fits(layer.in_features, layer.out_features, precision)
        )

    def recipe(self, precision: str) -> Recipe:
        """The function and arguments that quantize to ``precision``."""
        require_precision(self.name, self.precisions, precision)
        if precision == "int4wo":
            return Recipe(quantize_to_int4, {"group_size": _INT4_GROUP})
        if precision == "float8dq":
            return Recipe(quantize_to_dynamic_float8)
        return Recipe(quantize_with_torchao, {"config": _CONFIGS[precision]})

    def stored_precision(self, layer: "torch.nn.Module") -> str | None:
        """The precision of the weight's tensor class; None for a plain tensor."""
        kind = type(layer.weight).__name__
        if kind.startswith("Int4"):
            return "int4wo"
        activations = "wo" if getattr(layer.weight, "act_quant_kwargs", None) is None else "dq"
        widths = {"Int8Tensor": "int8", "Float8Tensor": "float8"}
        return widths[kind] + activations if kind in widths else None


def quantize_with_torchao(
    module: "torch.nn.Module", layers: tuple[str, ...], *, config: str
) -> None:
    """Quantize exactly these linear layers with a torchao config, in place."""
    from torchao import quantization

    chosen = set(layers)
    # Without set_inductor_config=False the config changes torch.compile's settings for good.
    settings = getattr(quantization, config)(set_inductor_config=False)
    quantization.quantize_(module, settings, filter_fn=lambda _, path: path in chosen)
    module.requires_grad_(False).eval()


def quantize_to_dynamic_float8(module: "torch.nn.Module", layers: tuple[str, ...]) -> None:
    """Quantize exactly these layers to float8 with a scale a row, activations on the fly."""
    import torch
    from torchao import quantization

    settings = quantization.Float8DynamicActivationFloat8WeightConfig(
        granularity=quantization.PerRow(), set_inductor_config=False
    )
    # Quantized where it will run: some of the kernels are Triton's, which take no CPU tensor. One
    # at a time and back, because what will be offloaded may not fit there whole.
    card = torch.accelerator.current_accelerator()
    for path in layers:
        layer = module.get_submodule(path)
        home = layer.get_parameter("weight").device
        quantization.quantize_(layer, settings, filter_fn=lambda *_: True, device=card)
        layer.to(home)
    module.requires_grad_(False).eval()


def quantize_to_int4(
    module: "torch.nn.Module", layers: tuple[str, ...], *, group_size: int
) -> None:
    """Quantize exactly these linear layers to int4 for the tinygemm kernel of CUDA, in place."""
    import torch
    from torchao import quantization

    settings = quantization.Int4WeightOnlyConfig(
        group_size=group_size,
        int4_packing_format="tile_packed_to_4d",
        int4_tile_packed_ntile=16 if torch.version.hip else 8,
        set_inductor_config=False,
    )
    # The tiles are laid out by the device that will run them. One at a time and back, because what
    # will be offloaded may not fit there whole.
    card = torch.accelerator.current_accelerator()
    for path in layers:
        layer = module.get_submodule(path)
        home = layer.get_parameter("weight").device
        quantization.quantize_(layer, settings, filter_fn=lambda *_: True, device=card)
        layer.to(home)
    module.requires_grad_(False).eval()


def _fits(width: int, height: int, precision: str) -> bool:
    if precision == "float8dq":
        return width % _FLOAT8_BLOCK == 0 and height % _FLOAT8_BLOCK == 0
    if precision == "int4wo":
        return width % _INT4_GROUP == 0 and width >= _INT4_LEAST_WIDTH
    return True
