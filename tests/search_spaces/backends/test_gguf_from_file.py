from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

from autoquant.errors import InputError, QuantizationMismatch
from autoquant.search_spaces.backends.gguf_file import GgufFile
from autoquant.search_spaces.fuse import without_weights
from autoquant.search_spaces.linears import linears
from autoquant.search_spaces.quantize import apply_choice
from autoquant.search_spaces.scheme import Choice, Scheme
from tests.search_spaces.backends.gguf_blocks import KINDS, random_blocks, write_model


def loaded(build, scheme, **options):
    module = without_weights(build("flux"))
    return module, apply_choice(module, Choice(scheme=scheme, **options), torch.bfloat16)


def scheme_of(path):
    return f"gguf-file:{path}"


@pytest.mark.parametrize("kind", KINDS)
def test_formats_that_only_llama_cpp_makes_are_run(build, run, tmp_path, kind):
    path = tmp_path / f"flux-{kind}.gguf"
    original = build("flux")
    write_model(path, original, kind)
    names = list(original.state_dict())
    module, result = loaded(build, scheme_of(path))
    assert set(result.layers) == set(linears(original))
    assert run("flux", module).isfinite().all()
    for name, layer in linears(module).items():
        if layer.weight.quant_type.name == kind:
            height, width = layer.out_features, layer.in_features
            blocks = random_blocks(kind, height, width, seed=names.index(f"{name}.weight"))
            expected = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind])
            # diffusers multiplies in float16.
            difference = np.abs(dequantize_gguf_tensor(layer.weight).numpy() - expected).max()
            assert difference < 1e-3 * np.abs(expected).max()


def test_a_file_of_the_same_blocks_is_the_same_model(build, run, quantized, tmp_path):
    path = tmp_path / "flux-Q8_0.gguf"
    write_model(path, build("flux"), "Q8_0")
    module, result = loaded(build, scheme_of(path))
    made = quantized("flux", "gguf:Q8_0")
    assert result.layers == made.result.layers
    assert result.bytes_after == made.result.bytes_after
    assert torch.equal(run("flux", module), made.output)


def test_an_excluded_layer_is_unpacked(build, run, tmp_path):
    path = tmp_path / "flux.gguf"
    write_model(path, build("flux"), "Q4_0")
    module, result = loaded(build, scheme_of(path), exclusions=("transformer_blocks.0",))
    assert not any(layer.startswith("transformer_blocks.0.") for layer in result.layers)
    layer = module.transformer_blocks[0].attn.to_q
    assert type(layer) is torch.nn.Linear
    assert layer.weight.dtype == torch.bfloat16
    assert run("flux", module).isfinite().all()


def test_a_file_with_unquantized_matrices_keeps_them(build, run, tmp_path):
    path = tmp_path / "flux.gguf"
    write_model(path, build("flux"), "Q5_K", otherwise="BF16")
    # Q5_K rows are 256 weights: the image's 64 channels stay.
    _, result = loaded(build, scheme_of(path))
    assert "x_embedder" not in result.layers
    assert "context_embedder" in result.layers


def test_fusing_is_refused(build, tmp_path):
    path = tmp_path / "flux.gguf"
    write_model(path, build("flux"), "Q8_0")
    with pytest.raises(InputError, match="come quantized"):
        loaded(build, scheme_of(path), fuse_qkv=True)


def test_another_model_is_refused(build, tmp_path):
    path = tmp_path / "unet.gguf"
    write_model(path, build("unet"), "Q8_0")
    with pytest.raises(InputError, match=r"unet\.gguf holds no weights of this FluxTransformer2D"):
        GgufFile().quantizable_layers(build("flux"), str(path))
    assert GgufFile().quantizable_layers(build("t5"), str(path)) == ()


def test_a_file_that_lacks_a_tensor_is_refused(build, tmp_path):
    module = build("flux")
    del module.proj_out
    write_model(tmp_path / "cut.gguf", module, "Q8_0")
    with pytest.raises(InputError, match=r"cut\.gguf holds no weights of"):
        GgufFile().quantizable_layers(build("flux"), str(tmp_path / "cut.gguf"))


def test_what_a_file_brings_in_another_dtype_is_a_mismatch(build, tmp_path):
    path = tmp_path / "flux.gguf"
    write_model(path, build("flux"), "Q5_K", otherwise="BF16")
    module = without_weights(build("flux")).to(torch.float32)
    with pytest.raises(QuantizationMismatch, match=r"not in torch\.bfloat16"):
        apply_choice(module, Choice(scheme=scheme_of(path)), torch.bfloat16)


def test_a_missing_file_and_its_width():
    assert GgufFile().unavailable("~/none.gguf", "cpu") == "there is no file ~/none.gguf"
    for name, width in [("flux1-dev-Q4_K_S", 4), ("flux-2.IQ3_XS", 3), ("flux1", None)]:
        assert Scheme.parse(f"gguf-file:/8bit/{name}.gguf").width == width
