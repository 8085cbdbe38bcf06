"""bitsandbytes: 4-bit NF4 and FP4, and LLM.int8()."""

# No `from __future__ import annotations`: the recipes are copied into scripts that may not have it.
from collections.abc import Mapping
from typing import TYPE_CHECKING

from autoquant.search_spaces.backends.base import Recipe, not_installed, require_precision
from autoquant.search_spaces.linears import dtype_sensitive, plain_linears

if TYPE_CHECKING:
    import torch

# The device types with kernels in bitsandbytes 0.49 and later (bitsandbytes/backends/).
_DEVICES = ("cpu", "cuda", "xpu", "hpu")


class Bitsandbytes:
    """Weights in blocks of 64 (4 bit) or rows (8 bit), dequantized as they are used."""

    name = "bitsandbytes"
    precisions: Mapping[str, float] = {"nf4": 4.0, "fp4": 4.0, "int8": 8.0}

    def unavailable(self, precision: str, device_type: str) -> str | None:
        """Say why ``precision`` cannot run on ``device_type``; None if it can."""
        require_precision(self.name, self.precisions, precision)
        missing = not_installed("bitsandbytes", "0.49", "bitsandbytes")
        if missing is None and device_type not in _DEVICES:
            return (
                f"bitsandbytes has no kernels for {device_type}: use one of {', '.join(_DEVICES)}"
            )
        return missing

    def quantizable_layers(self, module: "torch.nn.Module", precision: str) -> tuple[str, ...]:
        """Paths that are safe to store as bytes.

        bitsandbytes weights report the dtype they are stored in (uint8 or int8). Code that casts
        its activations to ``weight.dtype`` then computes garbage without an error, so such layers
        are left alone, unless the model has a branch of its own for int8.
        """
        require_precision(self.name, self.precisions, precision)
        sensitive = dtype_sensitive(module)
        if precision == "int8":
            unsafe = sensitive.layers - sensitive.tolerate_int8
            return tuple(path for path in plain_linears(module) if path not in unsafe)
        # An odd width has no kernel and falls back to a compiled one: minutes on the first call.
        return tuple(
            path
            for path, layer in plain_linears(module).items()
            if path not in sensitive.layers and layer.in_features % 2 == 0
        )

    def recipe(self, precision: str) -> Recipe:
        """The function and arguments that quantize to ``precision``."""
        require_precision(self.name, self.precisions, precision)
        if precision == "int8":
            # The default of diffusers and transformers (BitsAndBytesConfig.llm_int8_threshold).
            return Recipe(quantize_to_8_bit, {"outlier_threshold": 6.0})
        return Recipe(quantize_to_4_bit, {"quant_type": precision})

    def stored_precision(self, layer: "torch.nn.Module") -> str | None:
        """The class of the weight, and of 4 bits its code book; None for a plain tensor."""
        kind = type(layer.weight).__name__
        if kind == "Int8Params":
            return "int8"
        name = getattr(layer.weight, "quant_type", None)
        return name if kind == "Params4bit" and isinstance(name, str) else None


def quantize_to_4_bit(
    module: "torch.nn.Module", layers: tuple[str, ...], *, quant_type: str
) -> None:
    """Quantize exactly these linear layers to bitsandbytes NF4 or FP4, in place."""
    import bitsandbytes as bnb
    import torch

    # A CPU takes minutes for what a card quantizes in a second.
    card = torch.accelerator.current_accelerator(check_available=True)
    card = card if card is not None and card.type in ("cuda", "xpu") else None
    for path in layers:
        layer = module.get_submodule(path)
        quantized = bnb.nn.Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=layer.weight.dtype,
            compress_statistics=False,
            quant_type=quant_type,
            device="meta",
        )
        weight = bnb.nn.Params4bit(
            layer.weight.data,
            requires_grad=False,
            compress_statistics=False,
            quant_type=quant_type,
            module=quantized,
        )
        quantized.weight = weight.to(card or layer.weight.device).to(layer.weight.device)
        quantized.bias = layer.bias
        # On CPUs with AVX512-BF16 the first forward repacks the weight, and a later state_dict()
        # unpacks it wrongly: the live model is damaged (bitsandbytes 0.50.2).
        quantized.support_avx512bf16_for_cpu = False
        parent_path, _, name = path.rpartition(".")
        setattr(module.get_submodule(parent_path), name, quantized)
    module.requires_grad_(False).eval()


def quantize_to_8_bit(
    module: "torch.nn.Module", layers: tuple[str, ...], *, outlier_threshold: float
) -> None:
    """Quantize exactly these linear layers to bitsandbytes LLM.int8(), in place."""
    import bitsandbytes as bnb
    import torch

    class MovableLinear8bit(bnb.nn.Linear8bitLt):  # type: ignore[misc]
        """Linear8bitLt whose scales follow its weight when a whole model is moved."""

        def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
            super()._apply(fn, recurse)
            for owner in (self.weight, self.state):
                if owner.CB is not None:
                    owner.CB = self.weight.data
                if owner.SCB is not None:
                    owner.SCB = owner.SCB.to(self.weight.device)
            return self

    card = torch.accelerator.current_accelerator(check_available=True)
    card = card if card is not None and card.type in ("cuda", "xpu") else None
    for path in layers:
        layer = module.get_submodule(path)
        quantized = MovableLinear8bit(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            has_fp16_weights=False,
            threshold=outlier_threshold,
            device="meta",
        )
        weight = layer.get_parameter("weight").detach().contiguous()
        on_card = weight.to(card or weight.device, torch.float16)
        quantized_there = bnb.functional.int8_vectorwise_quant(on_card)[:2]
        rows, row_scales = (tensor.to(weight.device) for tensor in quantized_there)
        quantized.weight = bnb.nn.Int8Params(
            rows, requires_grad=False, has_fp16_weights=False, CB=rows, SCB=row_scales
        )
        quantized.bias = layer.bias
        parent_path, _, name = path.rpartition(".")
        setattr(module.get_submodule(parent_path), name, quantized)
    module.requires_grad_(False).eval()
