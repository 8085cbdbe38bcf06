"""VAEs of the real classes, small, and turned up so that random weights draw more than grey."""

from __future__ import annotations

from typing import Any

import torch

# Random decoders answer with a few hundredths around zero; an image needs contrast.
CONTRAST = 4.0


def kl(latent_channels: int = 4, levels: int = 2, **changes: Any) -> Any:
    from diffusers import AutoencoderKL

    torch.manual_seed(10)
    return _turned_up(
        AutoencoderKL(
            latent_channels=latent_channels,
            block_out_channels=(32,) * levels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            layers_per_block=1,
            norm_num_groups=8,
            **changes,
        )
    )


def flow(**changes: Any) -> Any:
    """As FLUX and its successors use it: 16 channels, shifted, nothing around the latent."""
    return kl(
        16,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.0609,
        scaling_factor=1.5035,
        **changes,
    )


def flux2() -> Any:
    from diffusers import AutoencoderKLFlux2

    torch.manual_seed(11)
    return _turned_up(
        AutoencoderKLFlux2(
            latent_channels=4,
            block_out_channels=(32, 32),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            norm_num_groups=8,
        )
    )


def deep_compression() -> Any:
    from diffusers import AutoencoderDC

    torch.manual_seed(12)
    return _turned_up(
        AutoencoderDC(
            latent_channels=4,
            attention_head_dim=8,
            encoder_block_types=("ResBlock", "EfficientViTBlock"),
            decoder_block_types=("ResBlock", "EfficientViTBlock"),
            encoder_block_out_channels=(16, 16),
            decoder_block_out_channels=(16, 16),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            encoder_qkv_multiscales=((), (5,)),
            decoder_qkv_multiscales=((), (5,)),
        )
    )


def qwen_image() -> Any:
    from diffusers import AutoencoderKLQwenImage

    torch.manual_seed(13)
    return _turned_up(AutoencoderKLQwenImage(**_causal()))


def wan() -> Any:
    from diffusers import AutoencoderKLWan

    torch.manual_seed(14)
    return _turned_up(AutoencoderKLWan(**_causal()))


def movq() -> Any:
    from diffusers import VQModel

    torch.manual_seed(15)
    return _turned_up(
        VQModel(
            latent_channels=4,
            block_out_channels=(32,) * 4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("AttnUpDecoderBlock2D", *("UpDecoderBlock2D",) * 3),
            layers_per_block=1,
            norm_num_groups=8,
            num_vq_embeddings=12,
            norm_type="spatial",
            vq_embed_dim=4,
        )
    )


def _causal() -> dict[str, Any]:
    return {
        "base_dim": 12,
        "z_dim": 4,
        "dim_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "temperal_downsample": [False, True, True],
        "latents_mean": [0.0] * 4,
        "latents_std": [1.0] * 4,
    }


def _turned_up(vae: Any) -> Any:
    last = getattr(vae.decoder, "conv_out", None)
    weight = (last if hasattr(last, "weight") else vae.decoder.conv_out.conv).weight
    with torch.no_grad():
        weight.mul_(CONTRAST)
    return vae
