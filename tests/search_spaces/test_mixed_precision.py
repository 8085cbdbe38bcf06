"""Layers of one component in different precisions of one backend, really quantized."""

from __future__ import annotations

import pytest
import torch

from autoquant.errors import BackendUnavailable, InputError, QuantizationMismatch
from autoquant.search_spaces import quantize
from autoquant.search_spaces.backends import MixedPrecisions, backend, backends
from autoquant.search_spaces.linears import linears
from autoquant.search_spaces.quantize import apply_choice, layer_schemes, layers_to_quantize
from autoquant.search_spaces.scheme import Choice, Override, Scheme
from autoquant.storage import held_bytes, weight_bytes

# A narrow scheme, and a wider one of the same backend; torchao's int4 runs on CUDA alone.
PAIRS = [
    ("torchao:float8wo", "torchao:int8wo"),
    ("torchao:int8dq", "torchao:int8wo"),
    ("sdnq:int4", "sdnq:int8"),
    ("gguf:Q4_0", "gguf:Q8_0"),
    ("bitsandbytes:nf4", "bitsandbytes:int8"),
    ("quanto:int4", "quanto:int8"),
    ("auto-round:int2", "auto-round:int4"),
]
RAISED = {"flux": ("proj_out", "transformer_blocks.0"), "t5": ("encoder.block.0.layer.0",)}


def mixed(base, raised, *layers, **more):
    return Choice(scheme=base, overrides=(Override(scheme=raised, layers=layers),), **more)


def require_available(*schemes):
    for scheme in map(Scheme.parse, schemes):
        reason = backend(scheme.backend).unavailable(scheme.precision, "cpu")
        if reason is not None:
            pytest.skip(reason)


@pytest.mark.parametrize("model", ["flux", "t5"])
@pytest.mark.parametrize(("base", "raised"), PAIRS)
def test_each_layer_is_stored_as_planned(build, run, relative_error, model, base, raised):
    require_available(base, raised)
    module, plain, wide = build(model), build(model), build(model)
    choice = mixed(base, raised, *RAISED[model])
    result = apply_choice(module, choice, torch.bfloat16)
    assert set(result.schemes.values()) == {base, raised}
    assert result.layers == layers_to_quantize(build(model).to("meta"), choice)
    assert all(
        (scheme == raised)
        == any(path == root or path.startswith(f"{root}.") for root in RAISED[model])
        for path, scheme in result.schemes.items()
    )
    owner = backend(Scheme.parse(base).backend)
    for path, scheme in result.schemes.items():
        stored = owner.stored_precision(module.get_submodule(path))
        assert f"{owner.name}:{stored}" == scheme
    # Each layer holds what it holds where its scheme is the only one.
    apply_choice(plain, Choice(scheme=base), torch.bfloat16)
    apply_choice(wide, Choice(scheme=raised), torch.bfloat16)
    for path, scheme in result.schemes.items():
        alike = wide if scheme == raised else plain
        assert weight_bytes(module.get_submodule(path)) == weight_bytes(alike.get_submodule(path))
    assert held_bytes(module) == result.bytes_after
    output = run(model, module)
    assert torch.isfinite(output).all()
    assert relative_error(output, run(model, plain)) < 0.5


@pytest.mark.parametrize(("base", "raised"), PAIRS[:4])
def test_wider_layers_bring_the_output_no_further(
    build, run, reference, relative_error, base, raised
):
    require_available(base, raised)
    errors = []
    for choice in (Choice(scheme=base), mixed(base, raised, "transformer_blocks", "proj_out")):
        module = build("flux")
        apply_choice(module, choice, torch.bfloat16)
        errors.append(relative_error(run("flux", module), reference("flux")))
    assert errors[1] <= errors[0] or Scheme.parse(base).width == Scheme.parse(raised).width


def test_an_exclusion_inside_an_override_wins_and_fused_layers_follow_their_parts(build):
    choice = mixed(
        "torchao:float8wo",
        "torchao:int8wo",
        "transformer_blocks.0.attn",
        exclusions=("transformer_blocks.0.attn.to_out",),
        fuse_qkv=True,
    )
    module = build("flux")
    schemes = apply_choice(module, choice, torch.bfloat16).schemes
    assert schemes["transformer_blocks.0.attn.to_qkv"] == "torchao:int8wo"
    assert schemes["transformer_blocks.1.attn.to_qkv"] == "torchao:float8wo"
    assert "transformer_blocks.0.attn.to_out.0" not in schemes
    one = mixed("torchao:float8wo", "torchao:int8wo", "transformer_blocks.0.attn.to_k")
    fused = one.model_copy(update={"fuse_qkv": True})
    assert layer_schemes(build("flux"), fused)["transformer_blocks.0.attn.to_qkv"] == one.schemes[1]


def test_an_override_reaches_layers_that_the_base_cannot_take(build):
    # int4wo takes rows of 384 and more alone; x_embedder has 64.
    module = build("flux").to("meta")
    narrow = Choice(scheme="torchao:int4wo")
    wide = mixed("torchao:int4wo", "torchao:int8wo", "x_embedder")
    assert "x_embedder" not in layers_to_quantize(module, narrow)
    schemes = layer_schemes(module, wide)
    assert schemes["x_embedder"] == "torchao:int8wo"
    assert list(schemes) == [path for path in linears(module) if path in schemes]
    assert set(schemes) == {"x_embedder", *layers_to_quantize(module, narrow)}


@pytest.mark.parametrize(
    ("choice", "error", "told"),
    [
        (mixed("layerwise:float8_e4m3fn", "layerwise:float8_e5m2", "proj_out"),
         BackendUnavailable, "'layerwise' quantizes all layers of a component alike"),
        (mixed("torchao:float8wo", "torchao:int8wo", "proj_oud"),
         InputError, "The override 'proj_oud' is not a module path.*closest: proj_out"),
        (mixed("torchao:float8wo", "torchao:int8wo", "pos_embed"),
         QuantizationMismatch, "int8wo has nothing to quantize at pos_embed"),
        (mixed("torchao:float8wo", "torchao:int8wo", "proj_out", exclusions=("proj_out",)),
         QuantizationMismatch, "int8wo has nothing to quantize at proj_out"),
        (Choice(
            scheme="torchao:float8wo",
            fuse_qkv=True,
            overrides=(
                Override(scheme="torchao:int8wo", layers=("transformer_blocks.0.attn.to_q",)),
                Override(scheme="torchao:int8dq", layers=("transformer_blocks.0.attn.to_k",)),
            ),
        ), InputError, "to_qkv is one layer when fused.*int8dq and torchao:int8wo"),
    ],
)  # fmt: skip
def test_what_cannot_be_mixed_is_told(build, choice, error, told):
    with pytest.raises(error, match=told):
        apply_choice(build("flux"), choice, torch.bfloat16)


def test_a_layer_in_the_precision_of_others_is_a_mismatch(build, monkeypatch):
    real = backend("torchao")

    class Forgetful(type(real)):
        def recipe(self, precision):
            return super().recipe("float8wo")

    monkeypatch.setattr(quantize, "backend", lambda name: Forgetful())
    with pytest.raises(
        QuantizationMismatch, match=r"proj_out was to be .*int8wo, but it is torchao:float8wo\."
    ):
        apply_choice(
            build("flux"), mixed("torchao:float8wo", "torchao:int8wo", "proj_out"), torch.bfloat16
        )


def test_a_backend_says_whether_its_precisions_mix():
    mixing = {name for name, it in backends().items() if isinstance(it, MixedPrecisions)}
    assert mixing == {"bitsandbytes", "torchao", "quanto", "gguf", "sdnq", "auto-round"}
