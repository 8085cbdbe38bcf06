from __future__ import annotations

import pytest
import torch

from autoquant.errors import BackendUnavailable, InputError, QuantizationMismatch
from autoquant.search_spaces import quantize
from autoquant.search_spaces.backends.base import Recipe
from autoquant.search_spaces.fuse import fuse_qkv
from autoquant.search_spaces.linears import linears
from autoquant.search_spaces.quantize import apply_choice, layers_to_quantize
from autoquant.search_spaces.scheme import Choice
from autoquant.storage import held_bytes

INT8 = "torchao:int8wo"


class Faulty:
    """A backend whose recipe does what the test says instead of what was asked."""

    name = "faulty"
    precisions = {"int8": 8.0}  # noqa: RUF012

    def __init__(self, function):
        self.function = function

    def unavailable(self, precision, device_type):
        return None

    def quantizable_layers(self, module, precision):
        return tuple(linears(module))

    def recipe(self, precision):
        return Recipe(self.function)


def cast(module, layers):
    for path in layers:
        module.get_submodule(path).to(torch.float8_e4m3fn)


def test_none_changes_nothing(build, run, reference):
    module = build("clip")
    result = apply_choice(module, Choice(), torch.bfloat16)
    assert result.layers == ()
    assert result.bytes_before == result.bytes_after == held_bytes(module)
    assert torch.equal(run("clip", module), reference("clip"))


def test_none_may_fuse(build):
    module = build("flux")
    result = apply_choice(module, Choice(fuse_qkv=True), torch.bfloat16)
    assert result.bytes_before == result.bytes_after
    assert "transformer_blocks.0.attn.to_qkv" in linears(module)


@pytest.mark.parametrize("model", ["flux", "unet"])
@pytest.mark.parametrize("scheme", [INT8, "bitsandbytes:nf4"])
def test_fused_and_quantized_equals_quantized(build, run, relative_error, model, scheme):
    fused, plain = build(model), build(model)
    fused_result = apply_choice(fused, Choice(scheme=scheme, fuse_qkv=True), torch.bfloat16)
    plain_result = apply_choice(plain, Choice(scheme=scheme), torch.bfloat16)
    assert len(fused_result.layers) < len(plain_result.layers)
    assert fused_result.bytes_after <= plain_result.bytes_after
    assert relative_error(run(model, fused), run(model, plain)) < 0.01


def test_layers_are_the_same_before_and_after_fusing(build):
    choice = Choice(
        scheme=INT8,
        fuse_qkv=True,
        exclusions=("transformer_blocks.0.attn.to_q", "transformer_blocks.1.attn", "proj_out"),
    )
    module = build("flux")
    foretold = layers_to_quantize(module, choice)
    assert "transformer_blocks.0.attn.to_qkv" not in foretold
    assert "transformer_blocks.0.attn.to_added_qkv" in foretold
    assert not [path for path in foretold if path.startswith("transformer_blocks.1.attn.")]
    fuse_qkv(module)
    assert layers_to_quantize(module, choice) == foretold
    assert layers_to_quantize(build("flux").to("meta"), choice) == foretold


def test_unknown_exclusion_is_named_with_the_closest_paths(build):
    choice = Choice(scheme=INT8, exclusions=("transformer_blocks.0.attn.to_w",))
    with pytest.raises(InputError, match=r"to_w.*transformer_blocks\.0\.attn\.to_"):
        apply_choice(build("flux"), choice, torch.bfloat16)


def test_patterns_are_no_exclusions(build):
    with pytest.raises(InputError, match="not patterns"):
        apply_choice(build("flux"), Choice(scheme=INT8, exclusions=("*.to_q",)), torch.bfloat16)


def test_a_module_that_cannot_fuse_is_told(build):
    with pytest.raises(InputError, match="T5EncoderModel"):
        apply_choice(build("t5"), Choice(scheme=INT8, fuse_qkv=True), torch.bfloat16)


def test_unknown_backend_is_told(build):
    with pytest.raises(BackendUnavailable, match="did you mean"):
        apply_choice(build("clip"), Choice(scheme="bitsandbyte:nf4"), torch.bfloat16)


def test_nothing_left_to_quantize_is_a_mismatch(build):
    module = build("clip")
    everything = tuple(name for name, _ in module.named_children())
    with pytest.raises(QuantizationMismatch, match="nothing to quantize"):
        apply_choice(module, Choice(scheme=INT8, exclusions=everything), torch.bfloat16)


def test_a_layer_that_was_skipped_is_a_mismatch(build, monkeypatch):
    faulty = Faulty(lambda module, layers: cast(module, layers[1:]))
    monkeypatch.setattr(quantize, "backend", lambda name: faulty)
    module = build("clip")
    first = next(iter(linears(module)))
    with pytest.raises(QuantizationMismatch, match=f"1 hold as many.*{first}"):
        apply_choice(module, Choice(scheme="faulty:int8"), torch.bfloat16)


def test_a_layer_quantized_unasked_is_a_mismatch(build, monkeypatch):
    faulty = Faulty(lambda module, layers: cast(module, tuple(linears(module))))
    monkeypatch.setattr(quantize, "backend", lambda name: faulty)
    module = build("clip")
    paths = tuple(linears(module))
    with pytest.raises(QuantizationMismatch, match=r"changed 6 layers.*and 1 more"):
        apply_choice(module, Choice(scheme="faulty:int8", exclusions=paths[:6]), torch.bfloat16)


def test_a_layer_replaced_unasked_is_a_mismatch(build, monkeypatch):
    def replace(module, layers):
        cast(module, layers)
        module.get_submodule(excluded).weight = torch.nn.Parameter(torch.zeros(128, 128))

    monkeypatch.setattr(quantize, "backend", lambda name: Faulty(replace))
    module = build("clip")
    excluded = next(iter(linears(module)))
    with pytest.raises(QuantizationMismatch, match=f"leave alone: {excluded}"):
        apply_choice(module, Choice(scheme="faulty:int8", exclusions=(excluded,)), torch.bfloat16)


def test_a_model_that_reports_another_dtype_is_a_mismatch(build, monkeypatch):
    monkeypatch.setattr(quantize, "backend", lambda name: Faulty(cast))
    module = build("flux")
    for layer in linears(module).values():
        layer.bias = None
    with pytest.raises(QuantizationMismatch, match="float8_e4m3fn where it computes in"):
        apply_choice(module, Choice(scheme="faulty:int8"), torch.bfloat16)
