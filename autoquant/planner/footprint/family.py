"""What is known of each pipeline class: prompt lengths, guidance, how pixels become tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass

from autoquant.planner.footprint.config_values import integer, integers
from autoquant.planner.footprint.shapes import ComponentShapes, ModelShapes

_CLIP_TOKENS = 77
_USUAL_PIXELS = 1024


@dataclass(frozen=True)
class Family:
    """What one pipeline class does around its components.

    Attributes:
        pipelines: Matches the whole class name.
        text_tokens: Tokens that a long-prompt encoder (T5, a language model) is given by default.
        joint_tokens: Text tokens that the denoiser sees.
        doubles_batch: Whether guidance runs the denoiser on twice the batch.
        upcasts_vae: Whether a float16 pipeline decodes in float32.
        scale: Pixels along one side of a latent pixel, where no VAE tells.
    """

    pipelines: str
    text_tokens: int
    joint_tokens: int
    doubles_batch: bool
    upcasts_vae: bool = False
    scale: int = 8


# Defaults of max_sequence_length and of the guidance code in diffusers 0.42 pipelines/.
_FAMILIES = (
    Family(r"Flux2\w*", 512, 512, doubles_batch=False),
    Family(r"Bria\w*", 128, 128, doubles_batch=True),
    Family(r"Ovis\w*", 256, 256, doubles_batch=False),
    Family(r"(Flux|Chroma|LongCat)\w*", 512, 512, doubles_batch=False),
    Family(r"StableDiffusion3\w*", 256, 256 + _CLIP_TOKENS, doubles_batch=True),
    Family(r"PixArtAlpha\w*", 120, 120, doubles_batch=True),
    Family(r"PixArtSigma\w*", 300, 300, doubles_batch=True),
    Family(r"Sana\w*", 300, 300, doubles_batch=True, scale=32),
    Family(r"Kolors\w*", 256, 256, doubles_batch=True, upcasts_vae=True),
    Family(r"StableDiffusionXL\w*", 77, 77, doubles_batch=True, upcasts_vae=True),
    Family(r"QwenImage\w*", 512, 512, doubles_batch=False),
    Family(r"AuraFlow\w*", 256, 256, doubles_batch=True),
    Family(r"HunyuanDiT\w*", 256, 256 + _CLIP_TOKENS, doubles_batch=True),
    # These run their denoiser twice a step, each time on the batch.
    Family(r"Lumina2\w*", 256, 256, doubles_batch=False),
    Family(r"CogView4\w*", 1024, 1024, doubles_batch=False),
    Family(r"Wan\w*", 512, 512, doubles_batch=False),
    Family(r"HiDream\w*", 128, 256, doubles_batch=True),
    Family(r"ZImage\w*", 512, 512, doubles_batch=True),
    Family(r"StableDiffusion\w*", 77, 77, doubles_batch=True),
)
_UNKNOWN = Family(r".*", 512, 512, doubles_batch=True)


def family_of(pipeline_class: str) -> Family:
    """The family of a pipeline class; careful assumptions where it is not known."""
    found = (family for family in _FAMILIES if re.fullmatch(family.pipelines, pipeline_class))
    return next(found, _UNKNOWN)


def is_known(pipeline_class: str) -> bool:
    """Whether anything is known of the pipeline class."""
    return family_of(pipeline_class) is not _UNKNOWN


def denoiser_of(model: ModelShapes) -> ComponentShapes | None:
    """The component that runs at every step."""
    for name in ("transformer", "unet", "prior"):
        if name in model.components:
            return model.components[name]
    return None


def decoder_of(model: ModelShapes) -> ComponentShapes | None:
    """The component that makes pixels."""
    for name in ("vae", "vqvae", "movq"):
        if name in model.components:
            return model.components[name]
    return None


def encoders_of(model: ModelShapes) -> dict[str, ComponentShapes]:
    """The components that read the prompt, in the order they run."""
    return {
        name: component
        for name, component in model.components.items()
        if name.startswith("text_encoder")
    }


def latent_scale(model: ModelShapes) -> int:
    """Pixels along one side of a latent pixel."""
    vae = decoder_of(model)
    if vae is None:
        return family_of(model.class_name).scale
    for key in ("block_out_channels", "encoder_block_out_channels", "dim_mult"):
        steps = integers(vae.config, key, ())
        if steps:
            return 1 << min(len(steps) - 1, 8)
    return family_of(model.class_name).scale


def default_pixels(model: ModelShapes) -> int:
    """Pixels along one side of the image that the pipeline draws by default."""
    denoiser = denoiser_of(model)
    sample_size = integer(denoiser.config, "sample_size", 0) if denoiser else 0
    return sample_size * latent_scale(model) if 0 < sample_size < 2048 else _USUAL_PIXELS
