"""Folders that were quantized before: read, checked, loaded by the libraries' own quantizers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from autoquant.errors import InputError
from autoquant.search_spaces import backends
from autoquant.search_spaces.backends.base import NotInstalled
from autoquant.search_spaces.backends.checkpoint import Checkpoint, method_unavailable
from autoquant.search_spaces.compatibility import conflicts
from autoquant.search_spaces.fuse import without_weights
from autoquant.search_spaces.quantize import apply_choice
from autoquant.search_spaces.quantized_folder import read_quantized_folder
from autoquant.search_spaces.scheme import Choice, Scheme
from tests.search_spaces.quantized_folders import nunchaku_folder, save_quantized

SAVED = (
    ("flux", "torchao:int8wo"),
    ("flux", "torchao:float8wo"),
    ("flux", "quanto:float8"),
    ("t5", "torchao:int8wo"),
    ("t5", "bitsandbytes:int8"),
    ("clip", "bitsandbytes:nf4"),
    ("clip", "sdnq:int8"),
    ("unet", "torchao:int8wo"),
    ("flux", "auto-round:int4"),
    ("t5", "auto-round:int3"),
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a model under a scheme, what was quantized, and what it then computes."""
    made = {}

    def save(build, run, model, scheme):
        if (model, scheme) not in made:
            folder = tmp_path_factory.mktemp("folders") / f"{model}-{scheme.replace(':', '-')}"
            module = build(model)
            result = save_quantized(module, scheme, folder)
            made[model, scheme] = folder, result, run(model, module)
        return made[model, scheme]

    return save


def scheme_of(folder):
    return f"checkpoint:{folder}"


@pytest.mark.parametrize(("model", "scheme"), SAVED)
def test_a_folder_gives_the_model_that_was_saved(build, run, saved, relative_error, model, scheme):
    name, _, precision = scheme.partition(":")
    if reason := backends.backend(name).unavailable(precision, "cpu"):
        pytest.skip(reason)
    folder, result, output = saved(build, run, model, scheme)
    assert read_quantized_folder(folder).kind == scheme
    assert Checkpoint().unavailable(str(folder), "cpu") is None
    module = without_weights(build(model))
    loaded = apply_choice(module, Choice(scheme=scheme_of(folder)), torch.bfloat16)
    assert loaded.layers == result.layers
    assert loaded.bytes_after == pytest.approx(result.bytes_after, rel=0.01)
    assert read_quantized_folder(folder).stored_bytes == pytest.approx(loaded.bytes_after, rel=0.02)
    # bitsandbytes repacks 4-bit weights when it reads them.
    assert relative_error(run(model, module), output) < (0.02 if "nf4" in scheme else 1e-6)


def test_a_transformer_that_auto_round_itself_saved(build, run, tmp_path):
    auto_round = pytest.importorskip("auto_round", reason="needs auto-round")
    from diffusers import DiffusionPipeline

    from tests.families import classic

    classic.flux().save_pretrained(tmp_path / "flux")
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "flux", dtype=torch.bfloat16)
    options = {"iters": 0, "disable_opt_rtn": True, "group_size": 32, "device_map": "cpu"}
    rounding = auto_round.AutoRound(pipeline, scheme="W4A16", **options)
    rounding.quantize_and_save(tmp_path / "rounded", format="auto_round")
    folder = tmp_path / "rounded" / "transformer"
    with pytest.raises(InputError, match=r"but model\.safetensors: rename it"):
        read_quantized_folder(folder)
    (folder / "model.safetensors").rename(folder / "diffusion_pytorch_model.safetensors")
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "flux", dtype=torch.bfloat16)
    module = without_weights(pipeline.transformer)
    loaded = apply_choice(module, Choice(scheme=scheme_of(folder)), torch.bfloat16)
    assert {path.split(".")[0] for path in loaded.layers} == {
        "transformer_blocks",
        "single_transformer_blocks",
    }
    assert read_quantized_folder(folder).kind == "auto-round:int4"
    pipeline.transformer = module
    drawn = pipeline(
        "a red circle", height=64, width=64, num_inference_steps=1, output_type="np"
    ).images
    assert torch.from_numpy(drawn).isfinite().all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA card")
def test_a_nunchaku_folder_runs_on_a_card(build, tmp_path):
    if (reason := method_unavailable("nunchaku_lite")) is not None:
        pytest.skip(reason)
    capability = torch.cuda.get_device_capability()
    nunchaku_folder(build("flux"), tmp_path, precision="int4")
    if refused := conflicts(scheme_of(tmp_path), "cuda", capability=capability):
        pytest.skip(refused[0].reason)
    module = without_weights(build("flux"))
    loaded = apply_choice(module, Choice(scheme=scheme_of(tmp_path)), torch.bfloat16)
    assert loaded.bytes_after < loaded.bytes_before
    layer = module.to("cuda").get_submodule(loaded.layers[0])
    fed = torch.ones(1, 256, layer.in_features, dtype=torch.bfloat16, device="cuda")
    # Codes of zero: what is left is the bias.
    assert torch.equal(layer(fed)[0, 0], layer.bias)


def test_names_of_an_older_transformers_are_understood(build, run, saved, tmp_path):
    from safetensors.torch import load_file, save_file

    folder, result, output = saved(build, run, "clip", "bitsandbytes:int8")
    older = tmp_path / "older"
    shutil.copytree(folder, older)
    file = older / "model.safetensors"
    tensors = {f"text_model.{name}": tensor for name, tensor in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})
    module = without_weights(build("clip"))
    loaded = apply_choice(module, Choice(scheme=scheme_of(older)), torch.bfloat16)
    assert loaded.layers == result.layers
    assert torch.equal(run("clip", module), output)


def test_neither_fusing_nor_exclusions_are_possible(build, run, saved):
    folder, _, _ = saved(build, run, "flux", "torchao:int8wo")
    module = without_weights(build("flux"))
    for choice in ({"fuse_qkv": True}, {"exclusions": ("proj_out",)}):
        with pytest.raises(InputError, match="its layers come quantized"):
            apply_choice(module, Choice(scheme=scheme_of(folder), **choice), torch.bfloat16)


def test_another_model_is_refused(build, run, saved):
    folder, _, _ = saved(build, run, "clip", "bitsandbytes:int8")
    found = read_quantized_folder(folder)
    with pytest.raises(InputError, match="no weights of this T5EncoderModel: it holds a CLIPText"):
        found.quantized_layers(build("t5"))
    assert Checkpoint().quantizable_layers(build("t5"), str(folder)) == ()
    deeper = build("clip")
    deeper.encoder.layers.append(torch.nn.ModuleList([torch.nn.Linear(8, 8)]))
    with pytest.raises(InputError, match=r"it lacks encoder\.layers\.2\.0\.bias"):
        found.quantized_layers(deeper)
    shallower = build("clip")
    del shallower.encoder.layers[1]
    with pytest.raises(InputError, match=r"no place for its encoder\.layers\.1\."):
        found.quantized_layers(shallower)
    wider = build("clip")
    wider.final_layer_norm = torch.nn.LayerNorm(64)
    with pytest.raises(
        InputError, match=r"final_layer_norm\.weight is \[128\], the model's \[64\]"
    ):
        found.quantized_layers(wider)
    narrower = build("clip")
    narrower.encoder.layers[0].mlp.fc1 = torch.nn.Linear(16, 512)
    with pytest.raises(InputError, match=r"it stores 65536 bytes for the 8192 weights of encoder"):
        found.quantized_layers(narrower)


def _config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: _config(f, quantization_config=None), "is not quantized"),
        (lambda f: _config(f, architectures=None), "names no class"),
        (lambda f: _config(f, quantization_config={"quant_method": 3}), "the quant_method 3"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "config.json").unlink(), "it has no config.json"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no"), "no sound safetensors file"),
        (
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            "Pickles can run code",
        ),
        (lambda f: (f / "model.safetensors").rename(f / "x.safetensors"), "rename it"),
        (
            lambda f: (f / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "../../b.safetensors"}}'
            ),
            "no sound weight_map",
        ),
        (lambda f: (f / "model_index.json").write_text("{}"), "is a whole pipeline"),
        (shutil.rmtree, "There is no folder"),
    ],
)
def test_what_is_no_quantized_folder_is_told(build, run, saved, tmp_path, damage, message):
    folder, _, _ = saved(build, run, "clip", "bitsandbytes:int8")
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    damage(damaged)
    with pytest.raises(InputError, match=message):
        read_quantized_folder(damaged)
    assert message in str(Checkpoint().unavailable(str(damaged), "cpu"))


def test_an_unknown_method_is_told(build, run, saved, tmp_path):
    folder, _, _ = saved(build, run, "clip", "bitsandbytes:int8")
    shutil.copytree(folder, tmp_path / "other")
    _config(tmp_path / "other", quantization_config={"quant_method": "awq"})
    reason = Checkpoint().unavailable(str(tmp_path / "other"), "cpu")
    assert "quantized by 'awq', which is not loaded here; known are auto-round, " in str(reason)


def test_a_checkpoint_keeps_the_rules_of_its_kind(build, run, saved):
    folder, _, _ = saved(build, run, "clip", "bitsandbytes:nf4")
    scheme = scheme_of(folder)
    against = conflicts(scheme, "cuda", offload="group_leaf")
    assert [found.levers for found in against] == [("offload",)]
    assert conflicts(scheme, "cpu", component="transformers.CLIPTextModel") == []
    (refused,) = conflicts(scheme, "cpu", component="diffusers.FluxTransformer2DModel")
    assert "on a GPU only" in refused.reason
    (saving,) = conflicts(scheme, "cuda", save=True)
    assert "it is a checkpoint already" in saving.reason


def test_a_missing_package_is_told_with_the_command(monkeypatch):
    import importlib.metadata

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    for method, extra in (("auto-round", "auto-round"), ("nunchaku_lite", "nunchaku")):
        reason = method_unavailable(method)
        assert isinstance(reason, NotInstalled)
        assert reason.endswith(f'pip install "diffusers-autoquant[{extra}]"')


def test_nunchaku_asks_for_trust_in_its_kernels(monkeypatch):
    import importlib.metadata

    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.14.0")
    monkeypatch.delenv("DIFFUSERS_TRUST_REMOTE_KERNELS", raising=False)
    assert "set DIFFUSERS_TRUST_REMOTE_KERNELS=true" in str(method_unavailable("nunchaku_lite"))
    monkeypatch.setenv("DIFFUSERS_TRUST_REMOTE_KERNELS", "true")
    assert method_unavailable("nunchaku_lite") is None


def test_a_nunchaku_folder_is_read_from_its_headers(build, tmp_path):
    targets = nunchaku_folder(build("flux"), tmp_path, precision="int4")
    found = read_quantized_folder(tmp_path)
    assert found.kind == "nunchaku_lite:int4"
    assert set(found.quantized_layers(build("flux"))) == set(targets)


@pytest.mark.parametrize(
    ("device", "capability", "precision", "reason"),
    [
        ("cpu", None, "int4", "for NVIDIA cards"),
        ("mps", None, "int4", "for NVIDIA cards"),
        ("cuda", (7, 0), "int4", "7.5"),
        ("cuda", (7, 5), "int4", None),
        ("cuda", (8, 9), "int4", None),
        ("cuda", (8, 9), "nvfp4", "Blackwell"),
        ("cuda", (9, 0), "int4", "Hopper"),
        ("cuda", (10, 0), "nvfp4", None),
        ("cuda", (12, 0), "int4", None),
    ],
)
def test_where_nunchaku_runs(build, tmp_path, device, capability, precision, reason):
    nunchaku_folder(build("flux"), tmp_path, precision=precision)
    against = conflicts(scheme_of(tmp_path), device, capability=capability)
    assert bool(against) == (reason is not None)
    if reason is not None:
        assert reason in against[0].reason


def test_auto_round_and_nunchaku_are_in_the_registry():
    from autoquant.search_spaces.backends.checkpoint import METHODS

    assert backends.backend("checkpoint").name == "checkpoint"
    assert {"auto-round", "nunchaku_lite"} <= set(METHODS)
    assert Scheme.parse("checkpoint:~/flux-int4/transformer").short == (
        "checkpoint:flux-int4/transformer"
    )
    assert Scheme.parse("checkpoint:~/flux-int4/transformer").width is None
