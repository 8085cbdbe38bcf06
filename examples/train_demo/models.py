"""The networks of the demo pipeline: the architecture of FLUX.1, small enough to ship.

Widths are multiples of 128 (256 in the transformer), so that the group sizes of every
quantization backend divide them, as they do in the full-size models.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)
from text import BOS_ID, EOS_ID, MAX_TOKENS, PAD_ID, VOCABULARY, build_tokenizer
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel
from world import IMAGE_SIZE

LATENT_CHANNELS = 16
TEXT_WIDTH = 128


@dataclass
class Denoiser:
    """The three networks that are trained together on the latents."""

    clip: CLIPTextModel
    t5: T5EncoderModel
    transformer: FluxTransformer2DModel

    def modules(self) -> nn.ModuleList:
        """Return the networks as one module, for their parameters."""
        return nn.ModuleList([self.clip, self.t5, self.transformer])


def build_vae() -> AutoencoderKL:
    """Build the image autoencoder: 8x downsampling to 16 channels, as in FLUX.1."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 48, 48),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=IMAGE_SIZE,
        scaling_factor=1.0,
        shift_factor=0.0,
    )


def build_denoiser() -> Denoiser:
    """Build the text encoders and the transformer with their initial weights."""
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=TEXT_WIDTH,
            bos_token_id=BOS_ID,
            eos_token_id=EOS_ID,
            pad_token_id=PAD_ID,
        )
    )
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(VOCABULARY),
            d_model=TEXT_WIDTH,
            d_kv=32,
            d_ff=2 * TEXT_WIDTH,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=PAD_ID,
            eos_token_id=EOS_ID,
            relative_attention_num_buckets=32,
            relative_attention_max_distance=32,
        )
    )
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * LATENT_CHANNELS,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=32,
        num_attention_heads=8,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=False,
        axes_dims_rope=(8, 12, 12),
    )
    zero_modulation(transformer)
    return Denoiser(clip, t5, transformer)


def zero_modulation(transformer: FluxTransformer2DModel) -> None:
    """Let every block start as the identity and the output as zero (adaLN-zero)."""
    for name, module in transformer.named_modules():
        is_modulation = name.endswith((".norm1.linear", ".norm1_context.linear", ".norm.linear"))
        if is_modulation or name in ("norm_out.linear", "proj_out"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)


def assemble(vae: AutoencoderKL, denoiser: Denoiser) -> FluxPipeline:
    """Put trained networks, tokenizers and scheduler together as one pipeline."""
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False),
        vae=vae.eval(),
        text_encoder=denoiser.clip.eval(),
        tokenizer=build_tokenizer(add_bos=True),
        text_encoder_2=denoiser.t5.eval(),
        tokenizer_2=build_tokenizer(add_bos=False),
        transformer=denoiser.transformer.eval(),
    )
