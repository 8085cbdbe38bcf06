from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoquant.errors import InputError, UnsupportedPipeline
from autoquant.planner.budget import Budget
from autoquant.planner.footprint.denoiser import patch, width
from autoquant.planner.footprint.estimate import estimate
from autoquant.planner.footprint.family import denoiser_of, latent_scale
from autoquant.planner.footprint.model_shapes import read_model
from autoquant.planner.footprint.request import request_for
from autoquant.planner.footprint.shapes import ComponentShapes, ModelShapes, TensorShape
from tests.planner.footprint.pipelines import MODELS, write_component, write_header, write_pipeline


def only(flux: ModelShapes, *names: str) -> ModelShapes:
    return replace(flux, components={name: flux.components[name] for name in names})


def test_a_directory_in_shards_gives_the_shapes_it_was_written_from(
    flux: ModelShapes, flux_directory: Path
) -> None:
    found = read_model(str(flux_directory))
    assert found.class_name == flux.class_name
    assert {name: part.tensors for name, part in found.components.items()} == {
        name: part.tensors for name, part in flux.components.items()
    }


def test_pickles_are_not_opened(flux: ModelShapes, tmp_path: Path) -> None:
    write_pipeline(tmp_path, only(flux, "text_encoder"))
    weights = tmp_path / "text_encoder" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(
        UnsupportedPipeline, match=r"only pytorch_model\.bin\. Pickles can run code"
    ):
        read_model(str(tmp_path))


def test_variants_are_named(flux: ModelShapes, tmp_path: Path) -> None:
    write_pipeline(tmp_path, only(flux, "text_encoder"))
    weights = tmp_path / "text_encoder" / "model.safetensors"
    weights.rename(weights.with_name("model.fp16.safetensors"))
    with pytest.raises(UnsupportedPipeline, match=r"only the variants fp16: add --variant fp16"):
        read_model(str(tmp_path))
    assert read_model(str(tmp_path), variant="fp16").components


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "has no weight_map"),
        ({"weight_map": {"a": "../../etc/passwd.safetensors"}}, "names the shard"),
        ({"weight_map": {"a": 3}}, "names the shard"),
        ({"weight_map": {"a": "gone.safetensors"}}, r"has no text_encoder/gone\.safetensors"),
        ({"weight_map": {"a": "model.safetensors"}}, "tensors that no shard holds, first 'a'"),
    ],
)
def test_a_damaged_index_is_refused(
    flux: ModelShapes, tmp_path: Path, index: Any, message: str
) -> None:
    write_pipeline(tmp_path, only(flux, "text_encoder"))
    path = tmp_path / "text_encoder" / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    with pytest.raises(InputError, match=message):
        read_model(str(tmp_path))


def test_a_truncated_checkpoint_is_refused(flux: ModelShapes, tmp_path: Path) -> None:
    write_pipeline(tmp_path, only(flux, "text_encoder"))
    with (tmp_path / "text_encoder" / "model.safetensors").open("r+b") as file:
        file.truncate(100_000)
    with pytest.raises(InputError, match="describes 246120960 bytes of tensors"):
        read_model(str(tmp_path))


def test_one_file_with_a_denoiser_takes_the_rest_from_a_base(
    flux: ModelShapes, tmp_path: Path
) -> None:
    path = tmp_path / "flux.safetensors"
    write_header(path, flux.components["transformer"].tensors)
    alone = read_model(str(path))
    assert list(alone.components) == ["transformer"]
    assert "not counted" in alone.notes[0]
    whole = read_model(str(path), base=str(MODELS / "flux.1-dev.json"))
    assert set(whole.components) == set(flux.components)
    assert whole.components["transformer"].config["num_attention_heads"] == 24


def test_a_bundled_checkpoint_is_split(tmp_path: Path) -> None:
    path = tmp_path / "sdxl.safetensors"
    tensors = {
        "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
        "model.diffusion_model.label_emb.0.0.weight": (1280, 2816),
        "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
        "conditioner.embedders.0.transformer.x.weight": (768, 768),
        "conditioner.embedders.1.model.x.weight": (1280, 1280),
        "alphas_cumprod": (1000,),
    }
    write_header(path, {name: TensorShape.plain("F16", shape) for name, shape in tensors.items()})
    found = read_model(str(path))
    assert found.class_name == "StableDiffusionXLPipeline"
    assert set(found.components) == {"unet", "vae", "text_encoder", "text_encoder_2"}


# Tensors of the original layouts, with the widths of the published models.
SINGLE_FILES: list[tuple[str, dict[str, tuple[int, ...]], int, int]] = [
    ("FluxTransformer2DModel", {"double_blocks.0.img_attn.proj.weight": (3072, 3072)}, 3072, 2),
    (
        "ChromaTransformer2DModel",
        {
            "distilled_guidance_layer.in_proj.weight": (5120, 64),
            "double_blocks.0.img_attn.proj.weight": (3072, 3072),
        },
        3072,
        2,
    ),
    (
        "Flux2Transformer2DModel",
        {
            "double_stream_modulation_img.lin.weight": (36864, 6144),
            "double_blocks.0.img_attn.proj.weight": (6144, 6144),
        },
        6144,
        2,
    ),
    (
        "SanaTransformer2DModel",
        {
            "blocks.0.cross_attn.q_linear.weight": (2240, 2240),
            "blocks.0.mlp.inverted_conv.conv.weight": (11200, 2240, 1, 1),
        },
        2240,
        1,
    ),
    ("PixArtTransformer2DModel", {"blocks.0.cross_attn.q_linear.weight": (1152, 1152)}, 1152, 2),
    (
        "ZImageTransformer2DModel",
        {
            "cap_embedder.0.weight": (2560,),
            "layers.0.adaLN_modulation.0.weight": (15360, 256),
            "layers.0.attention.qkv.weight": (11520, 3840),
        },
        3840,
        2,
    ),
    (
        "Lumina2Transformer2DModel",
        {"cap_embedder.0.weight": (2304,), "layers.0.attention.qkv.weight": (3840, 2304)},
        2304,
        2,
    ),
    ("AuraFlowTransformer2DModel", {"double_layers.0.attn.w1q.weight": (3072, 3072)}, 3072, 2),
    (
        "WanTransformer3DModel",
        {"head.modulation": (1, 2, 1536), "blocks.0.ffn.0.weight": (8960, 1536)},
        1536,
        2,
    ),
    ("UNet2DConditionModel", {"model.diffusion_model.input_blocks.0.0.weight": (320, 4)}, 64, 1),
]


@pytest.mark.parametrize(("class_name", "shapes", "token", "side"), SINGLE_FILES)
def test_a_denoiser_is_told_by_its_tensors(
    tmp_path: Path, class_name: str, shapes: dict[str, tuple[int, ...]], token: int, side: int
) -> None:
    path = tmp_path / "model.safetensors"
    write_header(path, {name: TensorShape.plain("BF16", shape) for name, shape in shapes.items()})
    model = read_model(str(path))
    denoiser = denoiser_of(model)
    assert denoiser is not None
    assert denoiser.class_name == class_name
    assert (width(denoiser.config), patch(denoiser.config)) == (token, side)
    assert latent_scale(model) == (32 if "Sana" in class_name else 8)
    if class_name == "WanTransformer3DModel":
        assert denoiser.config["ffn_dim"] == 8960


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.ckpt", b"", "are pickles"),
        ("x.safetensors", b"", "is no sound safetensors file"),
        ("x.gguf", b"", "is no sound GGUF file"),
        ("x.json", b"[]", "is no shape list"),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_model(str(path))


def test_a_file_without_a_known_denoiser_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    write_header(path, {"lora.up.weight": TensorShape.plain("F16", (4, 4))})
    with pytest.raises(UnsupportedPipeline, match="holds no denoiser"):
        read_model(str(path))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
_KEYS = st.sampled_from(
    ["sample_size", "patch_size", "num_attention_heads", "attention_head_dim", "in_channels",
     "block_out_channels", "layers_per_block", "latent_channels", "d_model", "num_heads", "d_ff",
     "text_config", "tie_word_embeddings", "hidden_size", "vocab_size", "dim_mult", "hidden_act",
     "use_post_quant_conv", "num_hidden_layers", "ffn_dim", "all_patch_size", "dim"]
)  # fmt: skip
_CLASSES = st.sampled_from(
    ["FluxTransformer2DModel", "UNet2DConditionModel", "T5EncoderModel", "CLIPTextModel",
     "PixArtTransformer2DModel", "WanTransformer3DModel", "SomeNewTransformer2DModel",
     "AutoencoderKL", "AutoencoderKLQwenImage", "SomeForCausalLM"]
)  # fmt: skip


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(_KEYS, _JSON | st.integers(1, 64) | st.integers(1, 10**9), max_size=8), _CLASSES
)
def test_no_config_escapes_as_another_error(
    tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any], class_name: str
) -> None:
    directory = tmp_path_factory.mktemp("fuzz")
    names = {"Auto": "vae", "T5En": "text_encoder", "CLIP": "text_encoder", "Some": "text_encoder"}
    name = names.get(class_name[:4], "transformer")
    tensors = {"blocks.0.to_q.weight": TensorShape.plain("F32", (64, 64))}
    part = ComponentShapes(name, "diffusers", class_name, config, tensors)
    write_component(directory, part)
    index = {"_class_name": "FluxPipeline", name: ["diffusers", class_name]}
    (directory / "model_index.json").write_text(json.dumps(index))
    try:
        shapes = read_model(str(directory))
        result = estimate(shapes, request_for(shapes, 256, 256), Budget.of(8), ["torchao:int8wo"])
    except InputError:
        return
    assert result.rows
