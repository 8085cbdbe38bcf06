"""Small model folders, quantized before, for the doctor to load as a user's would be."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from safetensors.torch import save_file
from torch import nn

from autoquant.planner.checkpoint.quantizers import attach_quantizer, checkpoint_config
from autoquant.planner.emit.layout import ComponentLayout
from autoquant.search_spaces.backends import backend
from autoquant.search_spaces.scheme import Choice

LAYER = "proj"
# diffusers 0.42 NunchakuLiteQuantizationConfig: groups of 64 weights for int4; any rank.
_GROUP = 64
_RANK = 32


class SmallModel(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """One linear layer."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, width: int = 512) -> None:
        super().__init__()
        self.proj = nn.Linear(width, width)


def write_folder(method: str, folder: Path, width: int) -> nn.Linear:
    """Write a folder of ``method`` and give the layer that it stands for.

    Raises:
        KeyError: No folder of that method is made here.
    """
    model = SmallModel(width).to(torch.bfloat16)
    layer = nn.Linear(width, width).to(torch.bfloat16)
    layer.load_state_dict(model.proj.state_dict())
    if method == "auto-round":
        _auto_round(model, folder)
    elif method == "nunchaku_lite":
        nn.init.zeros_(layer.weight)  # its codes are
        _nunchaku(model, folder)
    else:
        raise KeyError(method)
    return layer.requires_grad_(False)


def _auto_round(model: SmallModel, folder: Path) -> None:
    recipe = backend("auto-round").recipe("int4")
    recipe.function(model, (LAYER,), **recipe.arguments)
    layout = ComponentLayout("diffusers", SmallModel.__name__, quantized=(LAYER,))
    config = checkpoint_config(layout, Choice(scheme="auto-round:int4"), "bfloat16")
    assert not isinstance(config, str)
    attach_quantizer(model, config)
    model.save_pretrained(folder)


def _nunchaku(model: SmallModel, folder: Path) -> None:
    """The tensors of diffusers' SVDQW4A4Linear, with zeros for codes and low-rank factors."""
    width = model.proj.in_features
    tensors = {
        "bias": model.proj.bias.data,
        "qweight": torch.zeros(width, width // 2, dtype=torch.int8),
        "wscales": torch.ones(width // _GROUP, width, dtype=torch.bfloat16),
        "smooth_factor": torch.ones(width, dtype=torch.bfloat16),
        "proj_down": torch.zeros(width, _RANK, dtype=torch.bfloat16),
        "proj_up": torch.zeros(width, _RANK, dtype=torch.bfloat16),
    }
    model.save_config(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["quantization_config"] = {
        "quant_method": "nunchaku_lite",
        "compute_dtype": "bfloat16",
        "svdq_w4a4": {"precision": "int4", "group_size": _GROUP, "rank": _RANK, "targets": [LAYER]},
    }
    path.write_text(json.dumps(config), encoding="utf-8")
    save_file(
        {f"{LAYER}.{name}": tensor for name, tensor in tensors.items()},
        folder / "diffusion_pytorch_model.safetensors",
        {"format": "pt"},
    )
