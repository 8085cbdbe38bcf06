"""LoRA adapters: measured with every candidate, counted, pruned for, and loaded by the script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from autoquant import autoquant
from autoquant.errors import InputError, QuantizationMismatch, UnsupportedPipeline
from autoquant.planner.adapters import (
    adapted_layers,
    adapters_from_files,
    adapters_of_pipeline,
    without_memory,
)
from autoquant.planner.building import build_pipeline
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.checkpoint.write import write_checkpoint
from autoquant.planner.drawing import draw
from autoquant.planner.loading import DirectoryLoader, ObjectLoader
from autoquant.planner.loras import NamedLora, by_component, require_loras
from autoquant.planner.plan import Plan
from autoquant.planner.preparation import prepare
from autoquant.planner.request import Request
from autoquant.planner.workload import Workload, WorkloadRequest
from autoquant.search_spaces.backends import backends
from autoquant.search_spaces.compatibility import conflicts
from autoquant.search_spaces.linears import linears
from autoquant.search_spaces.lora import require_active
from autoquant.search_spaces.quantize import apply_choice
from autoquant.search_spaces.scheme import Choice
from tests.families import classic

peft = pytest.importorskip("peft", reason='needs peft: pip install -e ".[lora]"')

CPU = torch.device("cpu")
SMALL = WorkloadRequest(prompts=("a red circle",), steps=1, height=64, width=64)
WORKLOAD = Workload(prompts=("a red circle",), seeds=(0,), height=64, width=64, steps=1)
TARGETS = {"transformer": ["to_q", "to_k", "proj_out"], "text_encoder": ["q_proj", "v_proj"]}
SCALE = 0.7
SCHEMES = [
    f"{name}:{precision}"
    for name, owner in backends().items()
    for precision in owner.precisions
    if owner.unavailable(precision, "cpu") is None
]


def with_style(pipeline: Any, scale: float = SCALE) -> Any:
    """``pipeline`` with a LoRA on its transformer and its CLIP, made as a trainer makes one."""
    torch.manual_seed(1)
    for component, targets in TARGETS.items():
        config = peft.LoraConfig(
            r=4, lora_alpha=8, target_modules=targets, init_lora_weights="gaussian"
        )
        module = getattr(pipeline, component)
        module.add_adapter(config, "style")
        for name, weight in module.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.2)
    pipeline.to(torch.bfloat16)
    pipeline.set_adapters(["style"], [scale])
    return pipeline


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline, and beside it a LoRA file as its own class saves one."""
    directory = tmp_path_factory.mktemp("models") / "flux"
    classic.flux().save_pretrained(directory)
    pipeline = with_style(loaded(directory))
    parts = {}
    for component in TARGETS:
        module = getattr(pipeline, component)
        tensors = peft.get_peft_model_state_dict(module, adapter_name="style")
        parts[f"{component}_lora_layers"] = tensors
        parts[f"{component}_lora_adapter_metadata"] = module.peft_config["style"].to_dict()
    pipeline.save_lora_weights(directory.parent, weight_name="style.safetensors", **parts)
    return directory


def loaded(directory: Path) -> Any:
    pipeline = DiffusionPipeline.from_pretrained(directory, dtype=torch.bfloat16)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def images(pipeline: Any) -> torch.Tensor:
    return torch.from_numpy(draw(pipeline, WORKLOAD, next(iter(WORKLOAD.batches()))))


def candidate(**schemes: str) -> Candidate:
    choices = {name: Choice(scheme=scheme) for name, scheme in schemes.items()}
    return Candidate(components=choices, runtime=Runtime())


def test_a_pipeline_is_taken_apart_and_put_together_again(flux: Path) -> None:
    pipeline = with_style(loaded(flux))
    drawn = images(pipeline)
    loader = ObjectLoader(pipeline)
    assert {name: own[0].scale for name, own in loader.adapters.items()} == {
        "transformer": SCALE,
        "text_encoder": SCALE,
    }
    plain = DirectoryLoader(flux)
    for name in loader.sizes:
        assert list(linears(loader.outline(name))) == list(linears(plain.outline(name)))
        assert list(loader.load(name, torch.bfloat16).state_dict()) == list(
            plain.load(name, torch.bfloat16).state_dict()
        )
    built = build_pipeline(loader, candidate(), CPU)
    assert torch.equal(images(built.pipeline), drawn)
    bare = build_pipeline(plain, candidate(), CPU)
    assert not torch.equal(images(bare.pipeline), drawn)
    added = sum(adapter.stored_bytes for own in loader.adapters.values() for adapter in own)
    assert built.weight_bytes == bare.weight_bytes + added
    # What was handed in is as it was.
    assert torch.equal(images(pipeline), drawn)


def test_a_file_gives_the_same_as_the_pipeline_that_saved_it(flux: Path) -> None:
    loader = DirectoryLoader(flux)
    outlines = {name: without_memory(loader.outline(name)) for name in loader.sizes}
    emptied = loader.assemble(outlines, torch.bfloat16)
    file = f"{flux.parent / 'style.safetensors'}={SCALE}"
    loader.adapters = by_component(adapters_from_files(emptied, [file]))
    assert set(adapted_layers(loader.adapters["text_encoder"])) == {
        f"encoder.layers.{number}.self_attn.{part}_proj" for number in (0, 1) for part in "qv"
    }
    built = build_pipeline(loader, candidate(), CPU)
    assert torch.equal(images(built.pipeline), images(with_style(loaded(flux))))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_adapters_act_on_quantized_layers(flux: Path, scheme: str) -> None:
    loader = ObjectLoader(with_style(loaded(flux)))
    if conflicts(scheme, "cpu", component="diffusers.FluxTransformer2DModel", lora=True):
        with pytest.raises(ValueError, match="not supported"):
            build_pipeline(loader, candidate(transformer=scheme), CPU)
        return
    # build_pipeline compares each adapted layer with its base and its adapters alone.
    built = build_pipeline(loader, candidate(transformer=scheme), CPU)
    drawn = images(built.pipeline)
    assert drawn.isfinite().all()
    loader.adapters = {}
    without = build_pipeline(loader, candidate(transformer=scheme), CPU)
    difference = (drawn - images(without.pipeline)).flatten()
    unquantized = images(with_style(loaded(flux))) - images(loaded(flux))
    likeness = torch.nn.functional.cosine_similarity(difference, unquantized.flatten(), 0)
    assert likeness > 0.5


def test_a_plan_carries_its_adapters(flux: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "components:\n"
        '  transformer: {schemes: ["quanto:int8"], exclusions: [[]]}\n'
        "  text_encoder: {schemes: [none]}\n"
        "  text_encoder_2: {schemes: [none]}\n"
        "runtime: {vae_tiling: [false]}\n"
    )
    out = tmp_path / "plan"
    plan = autoquant(
        with_style(loaded(flux)),
        vram_gb=1,
        objective="vram",
        max_loss=1,
        space_file=tmp_path / "own.yaml",
        workload=SMALL,
        metric="flip",
        download=False,
        trials=2,
        confirm=False,
        device="cpu",
        out=out,
    )
    assert plan == Plan.load_json(out / "plan.json")
    assert {(a.component, a.name, a.scale) for a in plan.adapters} == {
        ("transformer", "style", SCALE),
        ("text_encoder", "style", SCALE),
    }
    assert plan.components["transformer"].scheme == "quanto:int8"
    assert any("transformer has the LoRA adapters style" in note for note in plan.search.notes)
    script = subprocess.run(
        [sys.executable, "load_pipeline.py"], cwd=out, capture_output=True, text=True, check=False
    )
    assert script.returncode == 0, script.stderr
    assert f"weights: {plan.measured.weights_gb:.6f} GB, planned" in script.stdout
    assert "largest pixel difference: 0 of 255" in script.stdout
    for target in ("comfyui", "diffusers-config"):
        with pytest.raises(InputError, match="not told of LoRA adapters"):
            plan.emit(target, tmp_path / target)
    with pytest.raises(InputError, match="with the LoRA adapters style, which a checkpoint"):
        write_checkpoint(plan, tmp_path / "checkpoint")
    assert images(plan.load(device="cpu")).isfinite().all()


FLUX_LOADER = {
    "bitsandbytes:nf4": None,
    "torchao:int8wo": None,
    "gguf:Q8_0": None,
    "sdnq:int8": None,
    "quanto:int8": KeyError,
    "sdnq:uint4": ValueError,
    "layerwise:float8_e4m3fn": NotImplementedError,
}


@pytest.mark.parametrize(("scheme", "fails"), FLUX_LOADER.items())
def test_the_loader_of_flux_stops_at_some_weights(flux: Path, scheme: str, fails: Any) -> None:
    # Why adapters are attached by peft itself; docs/backends.md has it as a table.
    pipeline = loaded(flux)
    apply_choice(pipeline.transformer, Choice(scheme=scheme), torch.bfloat16)

    def load_and_draw() -> torch.Tensor:
        pipeline.load_lora_weights(flux.parent, weight_name="style.safetensors")
        return images(pipeline)

    if fails is None:
        assert load_and_draw().isfinite().all()
    else:
        with pytest.raises(fails):
            load_and_draw()


def test_two_adapters_on_a_unet_keep_their_scales(tmp_path: Path) -> None:
    classic.stable_diffusion_xl().save_pretrained(tmp_path)
    pipeline = loaded(tmp_path)
    torch.manual_seed(2)
    for name, targets in {"a": ["to_q", "conv1"], "b": ["to_q", "proj_in"]}.items():
        config = peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False)
        pipeline.unet.add_adapter(config, name)
    pipeline.to(torch.bfloat16)
    pipeline.unet.set_adapters(["a", "b"], [0.5, 1.5])
    loader = ObjectLoader(pipeline)
    assert [(it.name, it.scale) for it in loader.adapters["unet"]] == [("a", 0.5), ("b", 1.5)]
    built = build_pipeline(loader, candidate(), CPU)
    assert torch.equal(images(built.pipeline), images(pipeline))
    quantized = build_pipeline(loader, candidate(unet="torchao:int8wo"), CPU)
    assert images(quantized.pipeline).isfinite().all()


def test_an_adapter_that_does_not_act_is_a_mismatch(flux: Path) -> None:
    loader = ObjectLoader(with_style(loaded(flux)))
    module = build_pipeline(loader, candidate(), CPU).modules["transformer"]
    layers = adapted_layers(loader.adapters["transformer"])
    require_active(module, ["style"], layers, "transformer")
    with pytest.raises(QuantizationMismatch, match="on 6 layers, not on the 5"):
        require_active(module, ["style"], layers[1:], "transformer")
    layer = module.get_submodule(layers[0])
    forward = layer.forward
    layer.forward = layer.base_layer.forward
    with pytest.raises(QuantizationMismatch, match="do not act at"):
        require_active(module, ["style"], layers, "transformer")
    layer.forward = forward
    layer.enable_adapters(False)
    with pytest.raises(QuantizationMismatch, match="are switched off at"):
        require_active(module, ["style"], layers, "transformer")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("offload", ["none", "model", "group_leaf"])
@pytest.mark.parametrize("scheme", ["none", "bitsandbytes:nf4", "torchao:int8wo", "gguf:Q8_0"])
def test_adapters_act_on_the_accelerator(flux: Path, scheme: str, offload: str) -> None:
    device = torch.accelerator.current_accelerator()
    assert device is not None
    if conflicts(scheme, device.type, offload=offload):
        pytest.skip(f"{scheme} is not offloaded by {offload}")
    loader = ObjectLoader(with_style(loaded(flux)))
    asked = candidate(transformer=scheme).model_copy(
        update={"runtime": Runtime.model_validate({"offload": offload})}
    )
    with_them = images(build_pipeline(loader, asked, device).pipeline)
    loader.adapters = {}
    without = images(build_pipeline(loader, asked, device).pipeline)
    assert with_them.isfinite().all()
    assert not torch.equal(with_them, without)


class _Stopped(Exception):
    pass


def test_what_cannot_take_adapters_is_struck_before_any_trial(
    flux: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def stop(space: Any, *_: object) -> Any:
        seen["space"] = space
        raise _Stopped

    monkeypatch.setattr("autoquant.planner.preparation.with_levers", stop)
    monkeypatch.setattr(
        "autoquant.search_spaces.backends.auto_round.not_installed", lambda *_: None
    )
    file = str(flux.parent / "style.safetensors")
    request = Request(pipeline=str(flux), workload=SMALL, loras=(file,), device="cpu")
    with pytest.raises(_Stopped):
        prepare(request, tmp_path)
    space = seen["space"]
    assert "auto-round:int4" not in space.components["transformer"].schemes
    assert "auto-round:int4" in space.components["text_encoder_2"].schemes
    (struck,) = [
        it for it in space.struck if (it.component, it.scheme) == ("transformer", "auto-round:int4")
    ]
    assert struck.reason.startswith("with LoRA adapters: peft wraps no layer of auto-round")
    assert space.components["transformer"].fuse_qkv == (False,)
    assert space.components["text_encoder"].schemes[1:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.fuse_lora(), "fused at"),
        (lambda p: p.disable_lora(), "not active"),
        (
            lambda p: next(
                part for part in p.transformer.modules() if hasattr(part, "lora_A")
            ).set_scale("style", 2.0),
            "layer by layer",
        ),
    ],
)
def test_adapters_that_a_script_could_not_load_again_are_told(
    flux: Path, change: Any, message: str
) -> None:
    pipeline = with_style(loaded(flux))
    change(pipeline)
    with pytest.raises(UnsupportedPipeline, match=message):
        adapters_of_pipeline(pipeline)


def test_files_that_do_not_fit_are_told(flux: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    other = tmp_path / "other.safetensors"
    save_file({"unet.somewhere.lora_A.weight": torch.zeros(4, 4)}, other)
    loader = DirectoryLoader(flux)
    outlines = {name: without_memory(loader.outline(name)) for name in loader.sizes}
    with pytest.raises(InputError, match=r"other\.safetensors (holds nothing for|does not fit)"):
        adapters_from_files(loader.assemble(outlines, torch.bfloat16), [str(other)])
    (tmp_path / "style.bin").write_bytes(b"")
    for file, reason in [("none.safetensors", "no LoRA file"), ("style.bin", "Pickles can run")]:
        with pytest.raises(InputError, match=reason):
            require_loras([str(tmp_path / file)])


def test_a_scale_is_read_from_behind_the_file() -> None:
    assert NamedLora.parse("my-style.safetensors=0.5").scale == 0.5
    assert NamedLora.parse("my style.v2.safetensors").name == "my_style_v2"
