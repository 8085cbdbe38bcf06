"""Write examples/models/*.json: the shapes of well-known pipelines, from configs alone.

Every component is built on the meta device from the config written here, so no weight is read and
nothing is fetched. Run: python benchmarks/make_shape_lists.py
"""

# ruff: noqa: C408 -- configs read best as the keyword arguments that they are

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from autoquant.planner.footprint.shape_list import SCHEMA, compressed
from autoquant.planner.footprint.shapes import TensorShape

TARGET = Path(__file__).parent.parent / "examples" / "models"
_DTYPES = {torch.float32: "F32", torch.int64: "I64"}

DEFAULTS = f"the default config of diffusers {diffusers.__version__}"
T5_XXL = dict(
    vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64,
    feed_forward_proj="gated-gelu",
)  # fmt: skip
CLIP_L = dict(
    vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
    num_attention_heads=12, projection_dim=768,
)  # fmt: skip
CLIP_BIG_G = dict(
    vocab_size=49408, hidden_size=1280, intermediate_size=5120, num_hidden_layers=32,
    num_attention_heads=20, projection_dim=1280, hidden_act="gelu",
)  # fmt: skip
QWEN_7B = dict(
    text_config=dict(
        vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
        num_attention_heads=28, num_key_value_heads=4, tie_word_embeddings=False,
    ),
    vision_config=dict(
        depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, out_hidden_size=3584,
    ),
    tie_word_embeddings=False,
)  # fmt: skip
VAE = dict(
    in_channels=3, out_channels=3, block_out_channels=(128, 256, 512, 512), layers_per_block=2,
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    norm_num_groups=32, sample_size=1024,
)  # fmt: skip
SDXL_UNET = dict(
    sample_size=128, block_out_channels=(320, 640, 1280), layers_per_block=2,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    transformer_layers_per_block=(1, 2, 10), attention_head_dim=(5, 10, 20),
    cross_attention_dim=2048, use_linear_projection=True, addition_embed_type="text_time",
    addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
)  # fmt: skip
SD3_MEDIUM = dict(
    sample_size=128, patch_size=2, in_channels=16, num_layers=24, attention_head_dim=64,
    num_attention_heads=24, joint_attention_dim=4096, caption_projection_dim=1536,
    pooled_projection_dim=2048, out_channels=16, pos_embed_max_size=192,
)  # fmt: skip
PIXART_SIGMA = dict(
    num_attention_heads=16, attention_head_dim=72, in_channels=4, out_channels=8, num_layers=28,
    cross_attention_dim=1152, attention_bias=True, sample_size=128, patch_size=2,
    activation_fn="gelu-approximate", norm_type="ada_norm_single", norm_elementwise_affine=False,
    caption_channels=4096, interpolation_scale=2, use_additional_conditions=False,
)  # fmt: skip

Part = tuple[str, Callable[[], torch.nn.Module], str]


def part(class_name: str, origin: str, **config: Any) -> Part:
    """A diffusers model from its own keyword arguments."""
    return ("diffusers", lambda: getattr(diffusers, class_name)(**config), origin)


def encoder(class_name: str, config_name: str, origin: str, **config: Any) -> Part:
    """A transformers model from its config class."""

    def build() -> torch.nn.Module:
        model: torch.nn.Module = getattr(transformers, class_name)(
            getattr(transformers, config_name)(**config)
        )
        return model

    return ("transformers", build, origin)


CLIP_L_ORIGIN = "the sizes of openai/clip-vit-large-patch14's text model"
BIG_G_ORIGIN = "the sizes of laion/CLIP-ViT-bigG-14's text model"
T5 = encoder("T5EncoderModel", "T5Config", "the sizes of google/t5-v1_1-xxl", **T5_XXL)
CLIP = encoder("CLIPTextModel", "CLIPTextConfig", CLIP_L_ORIGIN, **CLIP_L)
CLIP_L_PROJECTED = encoder("CLIPTextModelWithProjection", "CLIPTextConfig", CLIP_L_ORIGIN, **CLIP_L)
CLIP_G_PROJECTED = encoder(
    "CLIPTextModelWithProjection", "CLIPTextConfig", BIG_G_ORIGIN, **CLIP_BIG_G
)
QWEN = encoder(
    "Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLConfig",
    "the sizes of Qwen/Qwen2.5-VL-7B-Instruct", **QWEN_7B,
)  # fmt: skip
VAE_4 = part("AutoencoderKL", "the sizes of the Stable Diffusion VAE", **VAE, latent_channels=4)
VAE_16 = part(
    "AutoencoderKL", "the sizes of the Stable Diffusion VAE, 16 latent channels, no quant convs",
    **VAE, latent_channels=16, use_quant_conv=False, use_post_quant_conv=False,
)  # fmt: skip

MODELS: dict[str, tuple[str, str, dict[str, Part]]] = {
    "flux.1-dev": ("FluxPipeline", "BF16", {
        "text_encoder": CLIP, "text_encoder_2": T5,
        "transformer": part(
            "FluxTransformer2DModel", f"{DEFAULTS}, with guidance", guidance_embeds=True
        ),
        "vae": VAE_16,
    }),
    "sd3-medium": ("StableDiffusion3Pipeline", "F16", {
        "text_encoder": CLIP_L_PROJECTED, "text_encoder_2": CLIP_G_PROJECTED,
        "text_encoder_3": T5,
        "transformer": part(
            "SD3Transformer2DModel", "24 layers of 24 heads of 64 (arXiv 2403.03206, depth 24)",
            **SD3_MEDIUM,
        ),
        "vae": VAE_16,
    }),
    "pixart-sigma": ("PixArtSigmaPipeline", "F32", {
        "text_encoder": T5,
        "transformer": part(
            "PixArtTransformer2DModel", f"{DEFAULTS}, captions of T5-XXL, scale 2", **PIXART_SIGMA
        ),
        "vae": VAE_4,
    }),
    "sdxl-base": ("StableDiffusionXLPipeline", "F32", {
        "text_encoder": CLIP, "text_encoder_2": CLIP_G_PROJECTED,
        "unet": part(
            "UNet2DConditionModel",
            "diffusers scripts/convert_diffusers_to_original_sdxl.py and arXiv 2307.01952, table 1",
            **SDXL_UNET,
        ),
        "vae": VAE_4,
    }),
    "qwen-image": ("QwenImagePipeline", "BF16", {
        "text_encoder": QWEN,
        "transformer": part("QwenImageTransformer2DModel", DEFAULTS),
        "vae": part("AutoencoderKLQwenImage", DEFAULTS),
    }),
}  # fmt: skip


def described(built: Part, dtype: str) -> dict[str, Any]:
    """One component of a shape list."""
    library, build, origin = built
    with torch.device("meta"):
        model = build()
    tensors = {
        name: TensorShape.plain(
            dtype if tensor.is_floating_point() else _DTYPES[tensor.dtype], tuple(tensor.shape)
        )
        for name, tensor in _saved(model).items()
    }
    return {
        "library": library,
        "class_name": type(model).__name__,
        "origin": origin,
        "config": _plain(model.config),
        "tensors": compressed(tensors),
    }


def _saved(model: torch.nn.Module) -> Mapping[str, torch.Tensor]:
    """The state dict as it is saved: a tied tensor once."""
    seen: dict[int, str] = {}
    return {
        name: tensor
        for name, tensor in model.state_dict(keep_vars=True).items()
        if seen.setdefault(id(tensor), name) == name
    }


def _plain(config: Any) -> dict[str, Any]:
    values = dict(config) if isinstance(config, Mapping) else config.to_diff_dict()
    if not isinstance(config, Mapping):
        values.update({key: getattr(config, key) for key in _SIZES if hasattr(config, key)})
    return {key: value for key, value in values.items() if not key.startswith("_")}


_SIZES = (
    "vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads", "is_gated_act",
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "projection_dim", "max_position_embeddings", "tie_word_embeddings",
)  # fmt: skip


def main() -> None:
    """Write every list."""
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, (class_name, dtype, parts) in MODELS.items():
        content = {
            "schema": SCHEMA,
            "class_name": class_name,
            "components": {key: described(built, dtype) for key, built in parts.items()},
        }
        path = TARGET / f"{name}.json"
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
