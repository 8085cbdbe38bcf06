from __future__ import annotations

import builtins
import inspect

import pytest
import torch
from torch import nn

from autoquant.errors import InputError
from autoquant.search_spaces.fuse import (
    FUSED_FROM,
    can_fuse,
    fuse_qkv,
    fused_skeleton,
    unfused_paths,
)
from autoquant.search_spaces.linears import linears
from autoquant.storage import held_bytes

FUSABLE = ["flux", "unet"]


@pytest.mark.parametrize("model", FUSABLE)
def test_fusing_keeps_output_and_bytes(build, run, reference, relative_error, model):
    module = build(model)
    before = held_bytes(module)
    fuse_qkv(module)
    assert held_bytes(module) == before
    assert relative_error(run(model, module), reference(model)) < 0.01
    assert not any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("model", [*FUSABLE, "vae"])
def test_the_skeleton_foretells_the_fused_layers(build, model):
    module = build(model)
    foretold = fused_skeleton(module)
    assert all(tensor.is_meta for tensor in foretold.parameters())
    assert not any(tensor.is_meta for tensor in module.parameters())
    fuse_qkv(module)
    assert list(linears(foretold)) == list(linears(module))


def test_cross_attention_fuses_keys_and_values_only(build):
    module = build("unet")
    fuse_qkv(module)
    attention = "down_blocks.1.attentions.0.transformer_blocks.0.attn2"
    assert {f"{attention}.to_q", f"{attention}.to_kv"} <= set(linears(module))
    assert unfused_paths(module)[f"{attention}.to_k"] == f"{attention}.to_kv"
    assert f"{attention}.to_q" not in unfused_paths(module)


def test_unfused_paths_are_the_ones_that_vanished(build):
    module = build("flux")
    before = set(linears(module))
    assert unfused_paths(module) == {}
    fuse_qkv(module)
    assert set(unfused_paths(module)) == before - set(linears(module))


@pytest.mark.parametrize("model", ["t5", "clip"])
def test_models_without_the_method_cannot_fuse(build, model):
    assert not can_fuse(build(model))
    with pytest.raises(InputError, match="fuse_qkv=False"):
        fused_skeleton(build(model))


def test_models_that_refuse_cannot_fuse():
    class Refusing(nn.Module):
        def fuse_qkv_projections(self):
            raise ValueError("not supported for models having added KV projections")

    class Idle(nn.Module):
        def fuse_qkv_projections(self):
            pass

    assert not can_fuse(Refusing())
    assert not can_fuse(Idle())
    with pytest.raises(InputError, match="added KV"):
        fused_skeleton(Refusing())


def test_models_whose_processors_ignore_the_fused_layer_cannot_fuse():
    from diffusers import Krea2Transformer2DModel

    with torch.device("meta"):
        module = Krea2Transformer2DModel(num_layers=1)
    with pytest.raises(InputError, match="Krea2AttnProcessor never reads to_qkv"):
        fused_skeleton(module)


def test_source_is_self_contained(build, run, reference):
    source = inspect.getsource(fuse_qkv)
    namespace = {"__builtins__": builtins}
    exec(source, namespace)
    module, expected = build("flux"), build("flux")
    namespace["fuse_qkv"](module)
    fuse_qkv(expected)
    assert torch.equal(run("flux", module), run("flux", expected))
    for fused, originals in FUSED_FROM.items():  # the copy in its body is the constant's
        assert all(f'"{name}"' in source for name in (fused, *originals))
