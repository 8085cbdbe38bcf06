"""Tiny pipelines that read prompts through language models, from configs with random weights."""

from __future__ import annotations

from typing import Any

import torch

from tests.families import classic, encoders, tokenizers, vaes

WIDTH = encoders.WIDTH


def _flow_scheduler(**settings: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**settings)


def sana() -> Any:
    from diffusers import SanaPipeline, SanaTransformer2DModel

    torch.manual_seed(30)
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=32,
        num_cross_attention_heads=2,
        cross_attention_head_dim=32,
        cross_attention_dim=WIDTH,
        caption_channels=WIDTH,
        sample_size=32,
    )
    return SanaPipeline(
        tokenizer=tokenizers.gemma(),
        text_encoder=encoders.gemma2(),
        vae=vaes.deep_compression(),
        transformer=transformer,
        scheduler=_flow_scheduler(shift=7.0),
    )


def lumina_2() -> Any:
    from diffusers import Lumina2Pipeline, Lumina2Transformer2DModel

    torch.manual_seed(31)
    transformer = Lumina2Transformer2DModel(
        sample_size=16,
        in_channels=16,
        hidden_size=WIDTH,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(8, 12, 12),
        axes_lens=(128, 32, 32),
        cap_feat_dim=WIDTH,
    )
    return Lumina2Pipeline(
        transformer=transformer,
        scheduler=_flow_scheduler(),
        vae=vaes.flow(),
        text_encoder=encoders.gemma2(),
        tokenizer=tokenizers.gemma(),
    )


def qwen_image() -> Any:
    from diffusers import QwenImagePipeline, QwenImageTransformer2DModel

    torch.manual_seed(32)
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 12, 12),
    )
    return QwenImagePipeline(
        scheduler=_flow_scheduler(use_dynamic_shifting=True),
        vae=vaes.qwen_image(),
        text_encoder=encoders.qwen2_5_vl(),
        tokenizer=tokenizers.qwen(),
        transformer=transformer,
    )


def z_image() -> Any:
    from diffusers import ZImagePipeline, ZImageTransformer2DModel

    torch.manual_seed(33)
    transformer = ZImageTransformer2DModel(
        in_channels=16,
        dim=WIDTH,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 12, 12],
        axes_lens=[1024, 64, 64],
    )
    with torch.no_grad():  # left empty by the constructor
        transformer.x_pad_token.normal_(std=0.02)
        transformer.cap_pad_token.normal_(std=0.02)
    return ZImagePipeline(
        scheduler=_flow_scheduler(),
        vae=vaes.flow(),
        text_encoder=encoders.qwen3(),
        tokenizer=tokenizers.qwen(),
        transformer=transformer,
    )


def _flux_2_transformer(*, guidance: bool) -> Any:
    from diffusers import Flux2Transformer2DModel

    torch.manual_seed(34)
    return Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=3 * WIDTH,
        axes_dims_rope=(8, 8, 8, 8),
        guidance_embeds=guidance,
    )


def flux_2_dev() -> Any:
    from diffusers import Flux2Pipeline

    return Flux2Pipeline(
        scheduler=_flow_scheduler(),
        vae=vaes.flux2(),
        text_encoder=encoders.mistral3(),
        tokenizer=tokenizers.mistral(),
        transformer=_flux_2_transformer(guidance=True),
    )


def flux_2_klein() -> Any:
    from diffusers import Flux2KleinPipeline

    return Flux2KleinPipeline(
        scheduler=_flow_scheduler(),
        vae=vaes.flux2(),
        # The pipeline reads the hidden states after 9, 18 and 27 layers.
        text_encoder=encoders.qwen3(layers=27, head=True),
        tokenizer=tokenizers.qwen(),
        transformer=_flux_2_transformer(guidance=False),
    )


def wan() -> Any:
    """Wan 2.2: two transformers that share the work."""
    from diffusers import WanPipeline, WanTransformer3DModel

    def transformer(seed: int) -> Any:
        torch.manual_seed(seed)
        return WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=32,
            in_channels=4,
            out_channels=4,
            text_dim=WIDTH,
            freq_dim=64,
            ffn_dim=2 * WIDTH,
            num_layers=2,
            rope_max_seq_len=32,
        )

    return WanPipeline(
        tokenizer=tokenizers.t5(),
        text_encoder=encoders.umt5(),
        vae=vaes.wan(),
        scheduler=_flow_scheduler(shift=7.0),
        transformer=transformer(35),
        transformer_2=transformer(36),
        boundary_ratio=0.875,
    )


def kandinsky_2_2() -> Any:
    """A pipeline that is made of two others, a prior and a decoder."""
    from diffusers import (
        DDPMScheduler,
        KandinskyV22CombinedPipeline,
        PriorTransformer,
        UnCLIPScheduler,
    )
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    torch.manual_seed(38)
    prior = PriorTransformer(
        num_attention_heads=2, attention_head_dim=32, num_layers=2, embedding_dim=WIDTH
    )
    with torch.no_grad():  # zeros by the constructor
        prior.clip_std.fill_(1.0)
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
        projection_dim=WIDTH,
    )
    return KandinskyV22CombinedPipeline(
        unet=classic.unet(
            out_channels=8,
            encoder_hid_dim=WIDTH,
            encoder_hid_dim_type="image_proj",
            addition_embed_type="image",
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            resnet_time_scale_shift="scale_shift",
        ),
        scheduler=DDPMScheduler(clip_sample=False),
        movq=vaes.movq(),
        prior_prior=prior,
        prior_image_encoder=CLIPVisionModelWithProjection(vision),
        prior_text_encoder=encoders.clip(projection=True),
        prior_tokenizer=tokenizers.clip(),
        prior_scheduler=UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=5.0
        ),
        prior_image_processor=CLIPImageProcessor(size=32, crop_size=32),
    )


def krea_2() -> Any:
    from diffusers import Krea2Pipeline, Krea2Transformer2DModel

    torch.manual_seed(39)
    transformer = Krea2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        attention_head_dim=32,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=2 * WIDTH,
        timestep_embed_dim=32,
        text_hidden_dim=WIDTH,
        num_text_layers=2,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=2 * WIDTH,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(8, 12, 12),
    )
    return Krea2Pipeline(
        scheduler=_flow_scheduler(use_dynamic_shifting=True),
        vae=vaes.qwen_image(),
        text_encoder=encoders.qwen3_vl(),
        tokenizer=tokenizers.qwen(),
        transformer=transformer,
        text_encoder_select_layers=(1, 2),
    )


def cogview_4() -> Any:
    from diffusers import CogView4Pipeline, CogView4Transformer2DModel

    torch.manual_seed(37)
    transformer = CogView4Transformer2DModel(
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=32,
        num_attention_heads=2,
        text_embed_dim=WIDTH,
        time_embed_dim=32,
        condition_dim=32,
        sample_size=16,
        rope_axes_dim=(32, 32),
    )
    return CogView4Pipeline(
        scheduler=_flow_scheduler(
            base_shift=0.25, max_shift=0.75, base_image_seq_len=256, use_dynamic_shifting=True
        ),
        vae=vaes.flow(),
        text_encoder=encoders.glm(),
        tokenizer=tokenizers.glm(),
        transformer=transformer,
    )
