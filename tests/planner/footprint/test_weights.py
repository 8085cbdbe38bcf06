from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
import transformers
from torch import nn

from autoquant.planner.footprint.layers import eligible_layers, is_dtype_sensitive
from autoquant.planner.footprint.module_shapes import shapes_of
from autoquant.planner.footprint.shapes import ComponentShapes, ModelShapes, TensorShape
from autoquant.planner.footprint.trace import build
from autoquant.planner.footprint.weights import (
    JOINT,
    component_bytes,
    kept_originals_bytes,
    quantized_parts,
)
from autoquant.search_spaces.backends import backends
from autoquant.search_spaces.linears import dtype_sensitive, plain_linears
from autoquant.search_spaces.quantize import apply_choice
from autoquant.search_spaces.scheme import Choice, Override
from autoquant.storage import held_bytes

IMAGE_MODELS = [
    "AuraFlowTransformer2DModel",
    "ChromaTransformer2DModel",
    "CogView4Transformer2DModel",
    "Flux2Transformer2DModel",
    "FluxTransformer2DModel",
    "Lumina2Transformer2DModel",
    "PixArtTransformer2DModel",
    "QwenImageTransformer2DModel",
    "SD3Transformer2DModel",
    "SanaTransformer2DModel",
    "UNet2DConditionModel",
    "WanTransformer3DModel",
    "ZImageTransformer2DModel",
]


@pytest.mark.parametrize("class_name", IMAGE_MODELS)
def test_layers_by_name_are_the_layers_by_module(class_name: str) -> None:
    few = {"num_layers": 2} if "num_layers" in _parameters(class_name) else {}
    with torch.device("meta"):
        module = getattr(diffusers, class_name)(**few).to(torch.bfloat16)
    shapes = shapes_of(module)
    plain = plain_linears(module)
    assert set(eligible_layers(shapes)) == set(plain)
    sensitive = {path for path in plain if is_dtype_sensitive(shapes, path, int8=False)}
    assert sensitive == dtype_sensitive(module).layers & set(plain)


def _parameters(class_name: str) -> Any:
    import inspect

    return inspect.signature(getattr(diffusers, class_name).__init__).parameters


def test_a_loaded_component_holds_the_bytes_predicted(model: ModelShapes) -> None:
    for component in model.components.values():
        module = build(component, "float32")
        stored = {id(tensor): tensor for tensor in module.state_dict(keep_vars=True).values()}
        # from_pretrained casts what the file holds and leaves computed tables in float32.
        held = sum(t.numel() * (2 if t.is_floating_point() else 8) for t in stored.values())
        computed = sum(b.nbytes for b in module.buffers() if id(b) not in stored)
        predicted = component_bytes(component, Choice(), "bfloat16")
        assert predicted == pytest.approx(held + computed, abs=2048), component.name


def tiny_t5() -> nn.Module:
    config = transformers.T5Config(
        vocab_size=128, d_model=256, d_kv=64, d_ff=1024, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return transformers.T5EncoderModel(config).eval().to(torch.bfloat16)


def tiny_pixart() -> nn.Module:
    module: nn.Module = diffusers.PixArtTransformer2DModel(
        num_attention_heads=4, attention_head_dim=64, num_layers=2, sample_size=32,
        cross_attention_dim=256, caption_channels=256,
    ).eval()  # fmt: skip
    for parameter in module.parameters():  # as from_pretrained does: tables stay in float32
        parameter.data = parameter.data.to(torch.bfloat16)
    return module


SCHEMES = [
    f"{name}:{precision}"
    for name, backend in backends().items()
    for precision in backend.precisions
    if backend.unavailable(precision, "cpu") is None
    and precision not in {"fp4", "float8_e5m2"}
    and name != "sdnq"
]


@pytest.mark.parametrize("make", [tiny_t5, tiny_pixart])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_quantized_component_holds_the_bytes_predicted(
    make: Callable[[], nn.Module], scheme: str
) -> None:
    module = make()
    shapes = shapes_of(module)
    choice = Choice(scheme=scheme)
    layers = apply_choice(module, choice, torch.bfloat16).layers
    assert set(quantized_parts(shapes, choice, "bfloat16")) == set(layers)
    assert component_bytes(shapes, choice, "bfloat16") == held_bytes(module)


@pytest.mark.parametrize("fuse_qkv", [False, True])
@pytest.mark.parametrize(
    ("base", "raised"),
    [
        ("torchao:float8wo", "torchao:int8wo"),
        ("bitsandbytes:nf4", "bitsandbytes:int8"),
        ("gguf:Q4_0", "gguf:Q8_0"),
        ("quanto:float8", "quanto:int8"),
    ],
)
def test_layers_of_different_precisions_hold_the_bytes_predicted(
    base: str, raised: str, fuse_qkv: bool
) -> None:
    layers = ("transformer_blocks.0.attn1.to_k", "transformer_blocks.1", "proj_out")
    choice = Choice(
        scheme=base,
        exclusions=("transformer_blocks.1.ff",),
        fuse_qkv=fuse_qkv,
        overrides=(Override(scheme=raised, layers=layers),),
    )
    module = tiny_pixart()
    shapes = shapes_of(module)
    schemes = apply_choice(module, choice, torch.bfloat16).schemes
    assert set(schemes.values()) == {base, raised}
    assert len(quantized_parts(shapes, choice, "bfloat16")) == len(schemes)
    assert component_bytes(shapes, choice, "bfloat16") == held_bytes(module)


@pytest.mark.parametrize("raised", ["bitsandbytes:int8", "torchao:int8wo"])
def test_a_wider_precision_may_take_layers_that_the_other_leaves(raised: str) -> None:
    base = {"bitsandbytes:int8": "bitsandbytes:nf4", "torchao:int8wo": "torchao:int8dq"}[raised]
    choice = Choice(scheme=base, overrides=(Override(scheme=raised, layers=("encoder.block.0",)),))
    module = tiny_t5()
    shapes = shapes_of(module)
    schemes = apply_choice(module, choice, torch.bfloat16).schemes
    # T5's own code casts to the dtype of wo, but for int8; 4 bits would be garbage there.
    wo = "encoder.block.{}.layer.1.DenseReluDense.wo"
    assert schemes[wo.format(0)] == raised
    assert (wo.format(1) in schemes) == (base != "bitsandbytes:nf4")
    assert set(quantized_parts(shapes, choice, "bfloat16")) == set(schemes)
    assert component_bytes(shapes, choice, "bfloat16") == held_bytes(module)


@pytest.mark.parametrize("scheme", ["none", "torchao:int8wo", "bitsandbytes:nf4"])
def test_fused_projections_hold_the_bytes_predicted(scheme: str) -> None:
    module = tiny_pixart()
    shapes = shapes_of(module)
    choice = Choice(scheme=scheme, fuse_qkv=True)
    apply_choice(module, choice, torch.bfloat16)
    assert component_bytes(shapes, choice, "bfloat16") == held_bytes(module)


def test_fusing_as_diffusers_does_keeps_the_originals() -> None:
    module = tiny_pixart()
    before, shapes = held_bytes(module), shapes_of(module)
    module.fuse_qkv_projections()  # type: ignore[operator]
    biases = sum(
        layer.bias.nbytes for path, layer in module.named_modules() if path.endswith("to_qkv")
    ) + sum(layer.bias.nbytes for path, layer in module.named_modules() if path.endswith("to_kv"))
    added = kept_originals_bytes(shapes, Choice(), "bfloat16")
    assert held_bytes(module) == before + added + biases


def test_an_excluded_projection_keeps_its_fused_layer_whole() -> None:
    shapes = shapes_of(tiny_pixart())
    excluded = "transformer_blocks.0.attn1.to_q"
    choice = Choice(scheme="torchao:int8wo", fuse_qkv=True, exclusions=(excluded,))
    paths = quantized_parts(shapes, choice, "bfloat16")
    assert not any(excluded in path.split(JOINT) for path in paths)
    assert "transformer_blocks.0.attn1.to_k" not in " ".join(paths)


def test_t5_keeps_its_second_projection_in_float32_for_float16_alone() -> None:
    shapes = shapes_of(tiny_t5())
    wo = sum(t.elements for name, t in shapes.tensors.items() if name.endswith(".wo.weight"))
    by_dtype = {
        dtype: component_bytes(shapes, Choice(), dtype) for dtype in ("bfloat16", "float16")
    }
    assert by_dtype["float16"] - by_dtype["bfloat16"] == 2 * wo


def _component(config: dict[str, Any], **shapes: tuple[int, ...]) -> ComponentShapes:
    tensors = {
        name.replace("__", "."): TensorShape.plain("F32", shape) for name, shape in shapes.items()
    }
    return ComponentShapes("text_encoder", "transformers", "XForCausalLM", config, tensors)


def test_tied_words_count_once_and_float32_becomes_the_compute_dtype() -> None:
    tensors = {"model__embed_tokens__weight": (100, 64), "lm_head__weight": (100, 64)}
    tied = _component({"tie_word_embeddings": True}, **tensors)
    untied = _component({"tie_word_embeddings": False}, **tensors)
    assert component_bytes(tied, Choice(), "bfloat16") == 100 * 64 * 2
    assert component_bytes(untied, Choice(), "bfloat16") == 2 * 100 * 64 * 2
    assert set(eligible_layers(untied)) == {"lm_head"}
    assert not eligible_layers(tied)


def test_a_quantized_checkpoint_stays_as_it_is() -> None:
    component = _component({"quantization_config": {}}, a__weight=(64, 64))
    choice = Choice(scheme="torchao:int8wo")
    assert component_bytes(component, choice, "bfloat16") == 64 * 64 * 4
