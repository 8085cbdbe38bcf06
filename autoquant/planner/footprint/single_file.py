"""A checkpoint in one file: whose components it holds is told from the names of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autoquant.planner.footprint.architectures import architecture_of
from autoquant.planner.footprint.checkpoint import read_file
from autoquant.planner.footprint.gguf_header import read_gguf_header
from autoquant.planner.footprint.repository import LocalRepository
from autoquant.planner.footprint.shapes import ComponentShapes, ModelShapes, TensorShape

_GGUF = ".gguf"

# Where checkpoints in the original layouts keep each component (diffusers
# loaders/single_file_utils.py, CHECKPOINT_KEY_NAMES and LDM_*_KEY).
_PREFIXES = (
    ("model.diffusion_model.", "denoiser"),
    ("first_stage_model.", "vae"),
    ("vae.", "vae"),
    ("cond_stage_model.", "text_encoder"),
    ("conditioner.embedders.0.", "text_encoder"),
    ("conditioner.embedders.1.", "text_encoder_2"),
    ("text_encoders.clip_l.", "text_encoder"),
    ("text_encoders.clip_g.", "text_encoder_2"),
    ("text_encoders.t5xxl.", "text_encoder_3"),
)
_VAE_CONFIG = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2}


def read_single_file(path: Path, base: ModelShapes | None = None) -> ModelShapes:
    """Read a ``.safetensors`` or ``.gguf`` checkpoint.

    Args:
        path: The file.
        base: The pipeline that brings the components which are not in the file.

    Raises:
        InputError: Its header is damaged.
        UnsupportedPipeline: Its tensors belong to no denoiser that is known.
    """
    repository = LocalRepository(path.parent, only=path)
    is_gguf = path.suffix == _GGUF
    if is_gguf:
        tensors = read_gguf_header(
            str(path),
            repository.sizes[path.name],
            lambda offset, length: repository.read(path.name, offset, length),
        )
    else:
        tensors = read_file(repository, path.name)
    parts = _split(tensors)
    found = architecture_of(path, parts.get("denoiser", {}))
    name = "unet" if found.class_name.startswith("UNet") else "transformer"
    config = found.config_from(parts["denoiser"])
    if is_gguf:
        config["quantization_config"] = {"quant_method": "gguf"}
    components = dict(base.components) if base else {}
    components[name] = ComponentShapes(
        name, "diffusers", found.class_name, config, parts.pop("denoiser")
    )
    for part, held in parts.items():
        components[part] = _other(part, held)
    missing = () if base or len(components) > 1 else (_ALONE,)
    return ModelShapes(base.class_name if base else found.pipeline, components, notes=missing)


_ALONE = (
    "The file holds the denoiser alone: text encoders and VAE are not counted. Name the pipeline "
    "that they come from with --base."
)


def _split(tensors: Mapping[str, TensorShape]) -> dict[str, dict[str, TensorShape]]:
    parts: dict[str, dict[str, TensorShape]] = {}
    bundled = any(name.startswith(_PREFIXES[0][0]) for name in tensors)
    for name, tensor in tensors.items():
        prefix, part = next(
            ((start, part) for start, part in _PREFIXES if bundled and name.startswith(start)),
            ("", "other" if bundled else "denoiser"),
        )
        parts.setdefault(part, {})[name.removeprefix(prefix)] = tensor
    parts.pop("other", None)
    return parts


def _other(part: str, tensors: Mapping[str, TensorShape]) -> ComponentShapes:
    if part == "vae":
        return ComponentShapes(part, "diffusers", "AutoencoderKL", dict(_VAE_CONFIG), tensors)
    is_t5 = any("relative_attention_bias" in name for name in tensors)
    class_name = "T5EncoderModel" if is_t5 else "CLIPTextModel"
    return ComponentShapes(part, "transformers", class_name, {}, tensors)
