"""Which denoiser a checkpoint in one file holds, told from the names of its tensors.

The names are those of the original layouts (diffusers loaders/single_file_utils.py,
CHECKPOINT_KEY_NAMES) and of diffusers' own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoquant.errors import UnsupportedPipeline
from autoquant.planner.footprint.shapes import TensorShape

_WIDTH = "width"


@dataclass(frozen=True)
class Size:
    """A number of a config that a tensor's shape tells: the tensor's name, and the axis."""

    tensor: str
    axis: int

    def found_in(self, tensors: Mapping[str, TensorShape]) -> int | None:
        """The number, if the tensor is there."""
        for name, tensor in tensors.items():
            if re.fullmatch(self.tensor, name) and len(tensor.shape) > self.axis:
                return tensor.shape[self.axis]
        return None


@dataclass(frozen=True)
class Architecture:
    """A denoiser that one of its tensors gives away.

    Attributes:
        mark: Matches the name of a tensor that no architecture below has.
        pipeline: The pipeline class it belongs to.
        class_name: Its class in diffusers.
        head: Width of one attention head.
        config: What is the same in all of its sizes.
        sizes: Numbers that are not; ``width`` is that of a token.
    """

    mark: str
    pipeline: str
    class_name: str
    head: int
    config: Mapping[str, Any]
    sizes: Mapping[str, Size] = field(default_factory=dict)

    def config_from(self, tensors: Mapping[str, TensorShape]) -> dict[str, Any]:
        """As much of the config as memory depends on."""
        read = {key: size.found_in(tensors) for key, size in self.sizes.items()}
        width = read.pop(_WIDTH, None) or self.head
        known = {key: value for key, value in read.items() if value is not None}
        heads = {"attention_head_dim": self.head, "num_attention_heads": width // self.head}
        return {**self.config, **known, **heads}


_PACKED = {"patch_size": 1, "in_channels": 64}
_ARCHITECTURES = (
    Architecture(
        r"double_stream_modulation_img\.(lin|linear)\.weight",
        "Flux2Pipeline", "Flux2Transformer2DModel", 128, {"patch_size": 1, "in_channels": 128},
        {_WIDTH: Size(r"double_stream_modulation_img\.(lin|linear)\.weight", 1)},
    ),
    Architecture(
        r"distilled_guidance_layer\..*",
        "ChromaPipeline", "ChromaTransformer2DModel", 128, _PACKED,
        {_WIDTH: Size(
            r"(double_blocks\.0\.img_attn\.proj|transformer_blocks\.0\.attn\.to_q)\.weight", 0
        )},
    ),
    Architecture(
        r"(double_blocks\.0\.img_attn\.proj|single_transformer_blocks\.0\.attn\.to_q)\.weight",
        "FluxPipeline", "FluxTransformer2DModel", 128, _PACKED,
        {_WIDTH: Size(
            r"(double_blocks\.0\.img_attn\.proj|single_transformer_blocks\.0\.attn\.to_q)"
            r"\.weight", 0
        )},
    ),
    Architecture(
        r"joint_blocks\.0\.x_block\.attn\.proj\.weight",
        "StableDiffusion3Pipeline", "SD3Transformer2DModel", 64, {"patch_size": 2},
        {_WIDTH: Size(r"joint_blocks\.0\.x_block\.attn\.proj\.weight", 0)},
    ),
    Architecture(
        r"transformer_blocks\.0\.img_mod\.1\.weight",
        "QwenImagePipeline", "QwenImageTransformer2DModel", 128,
        {"patch_size": 2, "in_channels": 64},
        {_WIDTH: Size(r"transformer_blocks\.0\.img_mod\.1\.weight", 1)},
    ),
    Architecture(
        r"blocks\.0\.mlp\.inverted_conv\.conv\.weight",
        "SanaPipeline", "SanaTransformer2DModel", 32, {"patch_size": 1},
        {_WIDTH: Size(r"blocks\.0\.mlp\.inverted_conv\.conv\.weight", 1)},
    ),
    Architecture(
        r"blocks\.0\.cross_attn\.q_linear\.weight",
        "PixArtSigmaPipeline", "PixArtTransformer2DModel", 72, {"patch_size": 2},
        {_WIDTH: Size(r"blocks\.0\.cross_attn\.q_linear\.weight", 0)},
    ),
    Architecture(
        r"layers\.0\.adaLN_modulation\.0\.weight",
        "ZImagePipeline", "ZImageTransformer2DModel", 128, {"all_patch_size": [2]},
        {_WIDTH: Size(r"layers\.0\.attention\.(qkv|to_q)\.weight", 1)},
    ),
    Architecture(
        r"cap_embedder\.0\.weight",
        "Lumina2Pipeline", "Lumina2Transformer2DModel", 96, {"patch_size": 2},
        {_WIDTH: Size(r"layers\.0\.attention\.qkv\.weight", 1)},
    ),
    Architecture(
        r"double_layers\.0\.attn\.w1q\.weight",
        "AuraFlowPipeline", "AuraFlowTransformer2DModel", 256, {"patch_size": 2},
        {_WIDTH: Size(r"double_layers\.0\.attn\.w1q\.weight", 1)},
    ),
    Architecture(
        r"head\.modulation",
        "WanPipeline", "WanTransformer3DModel", 128, {"patch_size": [1, 2, 2]},
        {_WIDTH: Size(r"head\.modulation", 2), "ffn_dim": Size(r"blocks\.0\.ffn\.0\.weight", 0)},
    ),
    Architecture(
        r"label_emb\.0\.0\.weight|add_embedding\.linear_1\.weight",
        "StableDiffusionXLPipeline", "UNet2DConditionModel", 64,
        {"block_out_channels": [320, 640, 1280]},
    ),
    Architecture(
        r"input_blocks\.0\.0\.weight|down_blocks\.0\.resnets\.0\.conv1\.weight",
        "StableDiffusionPipeline", "UNet2DConditionModel", 64,
        {
            "block_out_channels": [320, 640, 1280, 1280],
            "down_block_types": ["CrossAttnDownBlock2D"],
        },
    ),
)  # fmt: skip


def architecture_of(path: Path, tensors: Mapping[str, TensorShape]) -> Architecture:
    """The architecture of the denoiser that ``tensors`` belong to.

    Raises:
        UnsupportedPipeline: None that is known.
    """
    for architecture in _ARCHITECTURES:
        if any(re.fullmatch(architecture.mark, name) for name in tensors):
            return architecture
    known = ", ".join(dict.fromkeys(kind.class_name for kind in _ARCHITECTURES))
    raise UnsupportedPipeline(
        f"{path} holds no denoiser that is told by its tensors' names ({known}). Pass the "
        "directory or hub id of the whole pipeline."
    )
