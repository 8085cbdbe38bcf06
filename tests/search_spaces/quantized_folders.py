"""Model folders that a library saved quantized."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from autoquant.planner.checkpoint.quantizers import attach_quantizer, checkpoint_config
from autoquant.planner.emit.layout import ComponentLayout
from autoquant.planner.emit.load_time import LoadTimeConfig
from autoquant.search_spaces.backends import backends
from autoquant.search_spaces.linears import linears
from autoquant.search_spaces.quantize import QuantizedLayers, apply_choice
from autoquant.search_spaces.scheme import Choice, Scheme


def save_quantized(module: Any, scheme: str, folder: Path) -> QuantizedLayers:
    """Quantize ``module`` in place as its library does while loading, and save it."""
    config = _config(module, Choice(scheme=scheme))
    choice = Choice(scheme=scheme, exclusions=config.also_kept)
    if config.also_kept:
        config = _config(module, choice)
    made = apply_choice(module, choice, torch.bfloat16)
    attach_quantizer(module, config)
    module.save_pretrained(folder)
    return made


def _config(module: Any, choice: Choice) -> LoadTimeConfig:
    parsed = Scheme.parse(choice.scheme)
    eligible = backends()[parsed.backend].quantizable_layers(module, parsed.precision)
    quantized = tuple(path for path in eligible if path not in choice.exclusions)
    layout = ComponentLayout(
        library=type(module).__module__.partition(".")[0],
        class_name=type(module).__name__,
        quantized=quantized,
        kept=tuple(path for path in linears(module) if path not in quantized),
        kept_in_float32=tuple(sorted(getattr(module, "_keep_in_fp32_modules", None) or ())),
    )
    config = checkpoint_config(layout, choice, "bfloat16")
    assert isinstance(config, LoadTimeConfig), config
    return config


def nunchaku_folder(module: Any, folder: Path, precision: str) -> tuple[str, ...]:
    """Write a folder as diffusers' Nunchaku quantizer reads it, with zeros for weights.

    Its layout is that of SVDQW4A4Linear (diffusers 0.42 quantizers/nunchaku/utils.py).

    Returns:
        Paths of the layers that are quantized in it.
    """
    group, rank = (16, 32) if precision == "nvfp4" else (64, 32)
    targets = tuple(
        path
        for path, layer in linears(module).items()
        if "transformer_blocks" in path and layer.in_features % 64 == layer.out_features % 64 == 0
    )
    tensors = dict(module.state_dict())
    for path in targets:
        layer = module.get_submodule(path)
        rows, columns = layer.out_features, layer.in_features
        scales = torch.bfloat16 if precision == "int4" else torch.float8_e4m3fn
        del tensors[f"{path}.weight"]
        tensors |= {
            f"{path}.qweight": torch.zeros(rows, columns // 2, dtype=torch.int8),
            f"{path}.wscales": torch.zeros(columns // group, rows).to(scales),
            f"{path}.smooth_factor": torch.ones(columns, dtype=torch.bfloat16),
            f"{path}.proj_down": torch.zeros(columns, rank, dtype=torch.bfloat16),
            f"{path}.proj_up": torch.zeros(rows, rank, dtype=torch.bfloat16),
        }
        if precision == "nvfp4":
            tensors[f"{path}.wcscales"] = torch.ones(rows, dtype=torch.bfloat16)
            tensors[f"{path}.wtscale"] = torch.ones(1, dtype=torch.bfloat16)
    settings = {
        "quant_method": "nunchaku_lite",
        "compute_dtype": "bfloat16",
        "svdq_w4a4": {
            "precision": precision,
            "group_size": group,
            "rank": rank,
            "targets": list(targets),
        },
    }
    module.save_config(folder)
    path = folder / "config.json"
    config = {**json.loads(path.read_text(encoding="utf-8")), "quantization_config": settings}
    path.write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    return targets
