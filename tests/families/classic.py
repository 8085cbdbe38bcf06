"""Tiny pipelines that read prompts through CLIP, T5 and BERT, from configs with random weights."""

from __future__ import annotations

from typing import Any

import torch

from tests.families import encoders, tokenizers, vaes

WIDTH = encoders.WIDTH


def unet(**changes: Any) -> Any:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(20)
    return UNet2DConditionModel(
        **{
            "sample_size": 32,
            "block_out_channels": (32, 64),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "layers_per_block": 1,
            "cross_attention_dim": WIDTH,
            "attention_head_dim": 8,
            "norm_num_groups": 8,
            **changes,
        }
    )


def stable_diffusion() -> Any:
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPImageProcessor

    return StableDiffusionPipeline(
        vae=vaes.kl(),
        text_encoder=encoders.clip(),
        tokenizer=tokenizers.clip(),
        unet=unet(),
        scheduler=DDIMScheduler(clip_sample=False),
        safety_checker=_safety_checker(),
        feature_extractor=CLIPImageProcessor(size=32, crop_size=32),
    )


def _safety_checker() -> Any:
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    torch.manual_seed(27)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    }
    return StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=16))


def stable_diffusion_xl() -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    return StableDiffusionXLPipeline(
        vae=vaes.kl(),
        text_encoder=encoders.clip(),
        tokenizer=tokenizers.clip(),
        text_encoder_2=encoders.clip(projection=True),
        tokenizer_2=tokenizers.clip(),
        unet=unet(
            cross_attention_dim=2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
            transformer_layers_per_block=(1, 2),
            use_linear_projection=True,
        ),
        scheduler=EulerDiscreteScheduler(),
        add_watermarker=False,
    )


def kolors() -> Any:
    from diffusers import EulerDiscreteScheduler, KolorsPipeline

    return KolorsPipeline(
        vae=vaes.kl(),
        text_encoder=encoders.chatglm(),
        tokenizer=tokenizers.chatglm(),
        unet=unet(
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
            encoder_hid_dim=WIDTH,
            encoder_hid_dim_type="text_proj",
            use_linear_projection=True,
        ),
        scheduler=EulerDiscreteScheduler(),
        force_zeros_for_empty_prompt=False,
    )


def stable_diffusion_3() -> Any:
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

    torch.manual_seed(21)
    transformer = SD3Transformer2DModel(
        sample_size=32,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=32,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vaes.flow(),
        text_encoder=encoders.clip(projection=True),
        tokenizer=tokenizers.clip(),
        text_encoder_2=encoders.clip(projection=True),
        tokenizer_2=tokenizers.clip(),
        text_encoder_3=encoders.t5(2 * WIDTH),
        tokenizer_3=tokenizers.t5(),
    )


def flux() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    torch.manual_seed(22)
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vaes.flow(),
        text_encoder=encoders.clip(),
        tokenizer=tokenizers.clip(),
        text_encoder_2=encoders.t5(),
        tokenizer_2=tokenizers.t5(),
        transformer=transformer,
    )


def chroma() -> Any:
    from diffusers import ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler

    torch.manual_seed(23)
    transformer = ChromaTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 12, 12),
        approximator_num_channels=32,
        approximator_hidden_dim=32,
        approximator_layers=1,
    )
    return ChromaPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vaes.flow(),
        text_encoder=encoders.t5(),
        tokenizer=tokenizers.t5(),
        transformer=transformer,
    )


def pixart_sigma() -> Any:
    from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel

    torch.manual_seed(24)
    transformer = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=32,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=WIDTH,
        sample_size=8,
        caption_channels=WIDTH,
        norm_num_groups=8,
        use_additional_conditions=False,
    )
    return PixArtSigmaPipeline(
        tokenizer=tokenizers.t5(),
        text_encoder=encoders.t5(),
        vae=vaes.kl(),
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(),
    )


def hunyuan_dit() -> Any:
    from diffusers import DDPMScheduler, HunyuanDiT2DModel, HunyuanDiTPipeline

    torch.manual_seed(25)
    transformer = HunyuanDiT2DModel(
        sample_size=16,
        num_layers=2,
        patch_size=2,
        attention_head_dim=16,
        num_attention_heads=4,
        in_channels=4,
        hidden_size=WIDTH,
        cross_attention_dim=WIDTH,
        cross_attention_dim_t5=WIDTH,
        pooled_projection_dim=16,
        use_style_cond_and_image_meta_size=True,
    )
    return HunyuanDiTPipeline(
        vae=vaes.kl(levels=4),  # the pipeline counts on eight pixels a latent
        text_encoder=encoders.bert(),
        tokenizer=tokenizers.bert(),
        text_encoder_2=encoders.t5(),
        tokenizer_2=tokenizers.t5(),
        transformer=transformer,
        scheduler=DDPMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def aura_flow() -> Any:
    from diffusers import (
        AuraFlowPipeline,
        AuraFlowTransformer2DModel,
        FlowMatchEulerDiscreteScheduler,
    )

    torch.manual_seed(26)
    transformer = AuraFlowTransformer2DModel(
        sample_size=32,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=WIDTH,
        caption_projection_dim=WIDTH,
        pos_embed_max_size=256,
    )
    return AuraFlowPipeline(
        tokenizer=tokenizers.t5(),
        text_encoder=encoders.umt5(),
        vae=vaes.kl(),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )
