"""LoRA adapters on a component that is quantized already: attached, scaled, and seen to act."""

# No `from __future__ import annotations`: attach_adapters is copied into scripts that may not have
# it.
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autoquant.errors import QuantizationMismatch
from autoquant.search_spaces.backends.base import NotInstalled, not_installed

if TYPE_CHECKING:
    import torch

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

# What an adapter adds is a difference of two outputs in the compute dtype, of which the first may
# be a hundred times larger: bfloat16 keeps 8 bits.
_LARGEST_ERROR = 0.25
_ROWS = 4


def peft_missing() -> NotInstalled | None:
    """Say why no adapter can be attached in this environment; None if they can."""
    return not_installed("peft", "0.21", "lora")


def attach_adapters(
    module: "Any", adapters: "list[tuple[str, str, float]]", dtype: "torch.dtype"
) -> None:
    """Give ``module`` each adapter: its name, its folder as peft saves one, and its scale.

    peft makes an adapter in the dtype that a layer's weight reports, which may be that of a
    quantized weight: it is cast to ``dtype``.
    """
    from pathlib import Path

    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
    from peft.tuners.lora import LoraLayer
    from safetensors.torch import load_file

    for name, place, _ in adapters:
        folder = Path(place).expanduser()
        config = LoraConfig.from_pretrained(str(folder))
        config.inference_mode = True
        tensors = load_file(folder / "adapter_model.safetensors")
        options = {"adapter_name": name, "low_cpu_mem_usage": True}
        inject_adapter_in_model(config, module, state_dict=tensors, **options)
        set_peft_model_state_dict(module, tensors, **options)
    names = [name for name, _, _ in adapters]
    for layer in module.modules():
        if isinstance(layer, LoraLayer):
            for parts in (layer.lora_A, layer.lora_B):
                parts.to(dtype)
            layer.set_adapter(names)
            for name, _, scale in adapters:
                layer.set_scale(name, scale)
    if adapters:
        module._hf_peft_config_loaded = True
        module.requires_grad_(False).eval()


def require_active(
    module: "torch.nn.Module", names: Sequence[str], layers: Sequence[str], what: str
) -> None:
    """Check that the adapters ``names`` sit on exactly ``layers`` and change what those compute.

    Each linear layer is fed noise with its adapters and without: the difference must be what the
    adapters compute alone.

    Raises:
        QuantizationMismatch: They are elsewhere, are switched off, or change something else.
    """
    from peft.tuners.lora import LoraLayer

    adapted = {path: part for path, part in module.named_modules() if isinstance(part, LoraLayer)}
    if set(adapted) != set(layers):
        wrong = sorted(set(adapted) ^ set(layers))
        raise QuantizationMismatch(
            f"The adapters {', '.join(names)} of {what} are on {len(adapted)} layers, not on the "
            f"{len(layers)} that they were made for: {', '.join(wrong[:3])}."
        )
    for path, layer in adapted.items():
        own = [name for name in names if name in layer.lora_A]
        if layer.disable_adapters or layer.merged or set(own) - set(layer.active_adapters):
            raise QuantizationMismatch(f"The adapters of {what} are switched off at {path}.")
        error = _error(layer, own)
        if not error <= _LARGEST_ERROR:
            raise QuantizationMismatch(
                f"The adapters of {what} do not act at {path}: what they change is off by "
                f"{error:.0%} of what they compute."
            )


def _error(layer: "Any", names: Sequence[str]) -> float:
    """How far an adapted linear layer is from its base and its adapters alone; 0 for others."""
    import torch

    # A convolution is no quantized layer, and adapters for embeddings are kept elsewhere.
    if not names or not all(type(layer.lora_A[name]) is torch.nn.Linear for name in names):
        return 0.0
    down = layer.lora_A[names[0]].weight
    generator = torch.Generator().manual_seed(0)
    fed = torch.randn(_ROWS, down.shape[1], generator=generator).to(down.device, down.dtype)
    with torch.no_grad():
        both = layer(fed).float()
        layer.enable_adapters(False)
        base = layer(fed).float()
        layer.enable_adapters(True)
        alone = sum(
            layer.scaling[name] * layer.lora_B[name](layer.lora_A[name](fed)).float()
            for name in names
        )
    resolution = torch.finfo(down.dtype).eps * float(base.norm())
    return float((both - base - alone).norm()) / max(float(alone.norm()), 4 * resolution, 1e-12)
