"""Tiny models of the real classes, with seeded random weights; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import settings

# A shared machine pauses at will; how long an example takes proves nothing here.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

TEXT_TOKENS = 32
IMAGE_TOKENS = 64

Model = Any
Runner = Callable[[Model], torch.Tensor]


def flux_transformer() -> Model:
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(4)
    return _ready(
        FluxTransformer2DModel(
            patch_size=1,
            in_channels=64,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=128,
            num_attention_heads=2,
            joint_attention_dim=256,
            pooled_projection_dim=128,
            guidance_embeds=True,
            axes_dims_rope=(16, 56, 56),
        )
    )


def t5_encoder() -> Model:
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(2)
    return _ready(
        T5EncoderModel(
            T5Config(
                vocab_size=128,
                d_model=256,
                d_kv=64,
                d_ff=1024,
                num_layers=2,
                num_heads=4,
                feed_forward_proj="gated-gelu",
                dropout_rate=0.0,
            )
        )
    )


def clip_encoder() -> Model:
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    return _ready(
        CLIPTextModel(
            CLIPTextConfig(
                vocab_size=514,
                hidden_size=128,
                intermediate_size=512,
                projection_dim=128,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=77,
                bos_token_id=512,
                eos_token_id=513,
                pad_token_id=513,
            )
        )
    )


def unet() -> Model:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(7)
    return _ready(
        UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(32, 64),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=128,
            attention_head_dim=16,
            norm_num_groups=32,
        )
    )


def vae() -> Model:
    from diffusers import AutoencoderKL

    torch.manual_seed(3)
    return _ready(
        AutoencoderKL(
            block_out_channels=(32, 64),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=32,
        )
    )


@torch.no_grad()
def run_flux(model: Model) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    side = int(IMAGE_TOKENS**0.5)
    image_ids = torch.zeros(IMAGE_TOKENS, 3)
    image_ids[:, 1] = torch.arange(IMAGE_TOKENS) // side
    image_ids[:, 2] = torch.arange(IMAGE_TOKENS) % side

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(torch.bfloat16)

    output = model(
        hidden_states=noise(1, IMAGE_TOKENS, 64),
        encoder_hidden_states=noise(1, TEXT_TOKENS, 256),
        pooled_projections=noise(1, 128),
        timestep=torch.tensor([0.5], dtype=torch.bfloat16),
        guidance=torch.tensor([3.5]),
        img_ids=image_ids.to(torch.bfloat16),
        txt_ids=torch.zeros(TEXT_TOKENS, 3, dtype=torch.bfloat16),
        return_dict=False,
    )
    return output[0].float()


@torch.no_grad()
def run_text_encoder(model: Model) -> torch.Tensor:
    tokens = torch.arange(3, 3 + TEXT_TOKENS).view(1, TEXT_TOKENS)
    return model(input_ids=tokens)[0].float()


@torch.no_grad()
def run_unet(model: Model) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(1, 4, 16, 16, generator=generator).to(torch.bfloat16)
    prompt = torch.randn(1, TEXT_TOKENS, 128, generator=generator).to(torch.bfloat16)
    return model(sample, torch.tensor([500]), prompt, return_dict=False)[0].float()


BUILDERS: dict[str, Callable[[], Model]] = {
    "flux": flux_transformer,
    "t5": t5_encoder,
    "clip": clip_encoder,
    "unet": unet,
    "vae": vae,
}
RUNNERS: dict[str, Runner] = {
    "flux": run_flux,
    "t5": run_text_encoder,
    "clip": run_text_encoder,
    "unet": run_unet,
}


@pytest.fixture
def build() -> Callable[[str], Model]:
    """Build the named model afresh; equal weights every time."""
    return lambda name: BUILDERS[name]()


@pytest.fixture
def run() -> Callable[[str, Model], torch.Tensor]:
    """Run the named model on its fixed input; float32 output."""
    return lambda name, model: RUNNERS[name](model)


@pytest.fixture(scope="session")
def reference() -> Callable[[str], torch.Tensor]:
    """Output of the named model before anything is done to it, computed once."""
    outputs: dict[str, torch.Tensor] = {}

    def output_of(name: str) -> torch.Tensor:
        if name not in outputs:
            outputs[name] = RUNNERS[name](BUILDERS[name]())
        return outputs[name]

    return output_of


@pytest.fixture
def relative_error() -> Callable[[torch.Tensor, torch.Tensor], float]:
    """Norm of the difference over the norm of the expected tensor."""
    return lambda actual, expected: float((actual - expected).norm() / expected.norm())


def _ready(model: Model) -> Model:
    return model.to(torch.bfloat16).eval().requires_grad_(False)
