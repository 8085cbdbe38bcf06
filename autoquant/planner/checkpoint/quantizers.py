"""Tell a component that was quantized in memory how it is to be saved and loaded again.

Without this, save_pretrained() writes quantized weights and no word about them, and loading gives
an error at best and noise at worst.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from autoquant.errors import BackendUnavailable
from autoquant.planner.emit.layout import ComponentLayout
from autoquant.planner.emit.load_time import LoadTimeConfig, load_time_config
from autoquant.search_spaces.compatibility import conflicts
from autoquant.search_spaces.scheme import Choice, Scheme

_AUTO_ROUND = "AutoRoundConfig"
_USE_INSTEAD = "Use the loader script instead: autoquant emit PLAN --to diffusers."


def saveable(
    components: Mapping[str, tuple[ComponentLayout, Choice]], compute_dtype: str, device_type: str
) -> dict[str, LoadTimeConfig]:
    """The config under which each changed component is saved.

    Raises:
        BackendUnavailable: A component cannot be saved so that it loads again as it is; names each
            of them, the reason, and what to use instead.
    """
    configs: dict[str, LoadTimeConfig] = {}
    reasons = []
    for name, (component, choice) in components.items():
        config = _config(component, choice, compute_dtype, device_type)
        if isinstance(config, str):
            reasons.append(f"{name} ({choice.scheme}): {config}")
        else:
            configs[name] = config
    if reasons:
        raise BackendUnavailable(
            f"This plan cannot be saved as a checkpoint: {'; '.join(reasons)}. {_USE_INSTEAD}"
        )
    return configs


def attach_quantizer(module: torch.nn.Module, config: LoadTimeConfig) -> None:
    """Give ``module`` the config and quantizer that a load-time quantized model would have."""
    model: Any = module
    is_packed = config.class_name == _AUTO_ROUND
    if is_packed:
        layers = auto_round_layers(module)
        config = replace(config, arguments={**config.arguments, "extra_config": layers})
    live = config.build()
    if config.library == "diffusers":
        from diffusers.quantizers.auto import DiffusersAutoQuantizer

        model.hf_quantizer = DiffusersAutoQuantizer.from_config(live, pre_quantized=is_packed)
        model.register_to_config(quantization_config=live)
    else:
        from transformers.quantizers.auto import AutoHfQuantizer

        model.hf_quantizer = AutoHfQuantizer.from_config(live, pre_quantized=is_packed)
        model.config.quantization_config = live
    if config.quant_type is not None:
        # torchao's quantizer learns here whether it is offloaded, and asks for it when it saves.
        model.hf_quantizer.validate_environment()
    model.is_quantized = True
    model.quantization_method = live.quant_method


def auto_round_layers(module: torch.nn.Module) -> dict[str, dict[str, Any]]:
    """How each packed layer of ``module`` is stored, as auto-round's own config spells it."""
    return {
        path: {"bits": layer.bits, "group_size": layer.group_size, "data_type": "int", "sym": True}
        for path, layer in module.named_modules()
        if hasattr(layer, "qweight")
    }


def checkpoint_config(
    component: ComponentLayout, choice: Choice, compute_dtype: str
) -> LoadTimeConfig | str:
    """The config that a saved component is loaded by, or why there is none.

    AutoRound's loads what was quantized before, and cannot quantize while loading.
    """
    scheme = Scheme.parse(choice.scheme)
    if scheme.backend != "auto-round" or choice.fuse_qkv:
        return load_time_config(component, choice, compute_dtype)
    settings = {
        "bits": int(scheme.precision.removeprefix("int")),
        "group_size": 128,
        "sym": True,
        "data_type": "int",
        "packing_format": "auto_round:auto_gptq",
        # No block as a whole: each layer is named in extra_config.
        "block_name_to_quantize": [],
    }
    return LoadTimeConfig(component.library, _AUTO_ROUND, settings, "extra_config")


def _config(
    component: ComponentLayout, choice: Choice, compute_dtype: str, device_type: str
) -> LoadTimeConfig | str:
    for scheme in choice.schemes:
        unsaveable = conflicts(
            scheme,
            device_type,
            component=f"{component.library}.{component.class_name}",
            save=True,
        )
        if unsaveable:
            return unsaveable[0].reason
    if choice.fuse_qkv:
        return "fused projections are not saved: loading builds the model unfused"
    is_bitsandbytes = Scheme.parse(choice.scheme).backend == "bitsandbytes"
    if is_bitsandbytes and component.library == "diffusers" and device_type == "cpu":
        return "diffusers loads bitsandbytes on a GPU only, so the checkpoint cannot be proved here"
    config = checkpoint_config(component, choice, compute_dtype)
    if not isinstance(config, str) and config.also_kept:
        return (
            f"the loader cannot tell {config.also_kept[0]}, which is quantized, from the layers "
            "that the plan keeps"
        )
    return config
