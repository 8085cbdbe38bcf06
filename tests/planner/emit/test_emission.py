from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest

from autoquant.errors import InputError, PlanFormatError
from autoquant.metrics.device import package_versions
from autoquant.planner.candidate import Runtime
from autoquant.planner.emit import registry
from autoquant.planner.emit.base import Verdict
from autoquant.planner.emit.layout import Layout, read_layout
from autoquant.planner.emit.registry import emitter, emitters
from autoquant.planner.plan import Plan, PlannedComponent, PlannedPipeline
from tests.in_process import Command
from tests.planner.emit.conftest import PlanFor, demo_plan

INT8 = demo_plan(transformer="torchao:int8wo")


class Elsewhere:
    """An emitter that another package brings."""

    name = "elsewhere"
    summary = "a tool that takes anything"

    def carries(self, plan: Plan, layout: Layout) -> Verdict:
        return Verdict(lost=("everything",))

    def files(self, plan: Plan, layout: Layout) -> dict[str, str]:
        return {"a/b.txt": plan.pipeline.class_name}

    def next_step(self, files: object) -> str:
        return "read it"


def test_an_unknown_target_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean comfyui") as refused:
        emitter("ComfyUI2")
    assert all(name in str(refused.value) for name in emitters())


@pytest.mark.parametrize("name", emitters())
def test_every_target_says_for_every_plan_what_it_carries(name: str, plan_for: PlanFor) -> None:
    for scheme in ("none", "torchao:int8wo", "bitsandbytes:nf4", "quanto:int2", "gguf:Q5_1"):
        for fuse in (False, True):
            part = PlannedComponent(scheme=scheme, exclusions=("proj_out",), fuse_qkv=fuse)
            plan = plan_for(transformer=part, text_encoder_2="layerwise:float8_e4m3fn")
            layout = read_layout(plan)
            chosen = emitter(name)
            verdict = chosen.carries(plan, layout)
            if verdict.impossible is not None:
                assert "transformer" in verdict.impossible
                continue
            files = chosen.files(plan, layout)
            together = " ".join(" ".join(files.values()).replace("# ", "").split())
            for loss in verdict.lost:
                assert loss in together.replace("\\u2019", "'"), (scheme, loss)
            assert chosen.next_step(files)


@pytest.mark.parametrize(
    ("lever", "value", "carried_by"),
    [
        ("offload", "model", {"sdnext", "stable-diffusion.cpp"}),
        ("offload", "group_leaf_disk", set()),
        ("compile", "regional", {"sdnext"}),
        ("vae_tiling", True, {"sdnext", "stable-diffusion.cpp", "comfyui"}),
        ("vae_slicing", True, {"sdnext"}),
        ("attention", "flash", {"stable-diffusion.cpp"}),
    ],
)
def test_levers_are_carried_or_lost(
    lever: str, value: Any, carried_by: set[str], plan_for: PlanFor
) -> None:
    usual = plan_for(transformer="torchao:int8wo")
    pulled = usual.model_copy(update={"runtime": Runtime.model_validate({lever: value})})
    layout = read_layout(usual)
    for name, each in emitters().items():
        lost = [
            loss
            for loss in each.carries(pulled, layout).lost
            if loss.startswith(f"{lever} {value}")
        ]
        assert bool(lost) == (name not in {"diffusers", *carried_by}), name
        changed = [
            before != after
            for before, after in zip(
                each.files(usual, layout).values(),
                each.files(pulled, layout).values(),
                strict=True,
            )
        ]
        assert all(changed), name


def test_another_package_can_bring_a_target(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry_point = importlib.metadata.EntryPoint("elsewhere", "x:y", registry.ENTRY_POINTS)
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda self: Elsewhere)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry_point])
    emitted = INT8.emit("elsewhere", tmp_path / "out", force=True)
    assert emitted.verdict.lost == ("everything",)
    assert (tmp_path / "out/a/b.txt").read_text() == "FluxPipeline"


def test_a_name_that_is_taken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    entry_point = importlib.metadata.EntryPoint("mine", "x:y", registry.ENTRY_POINTS)
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda self: type(emitter_class()))
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry_point])
    with pytest.raises(InputError, match="'comfyui' of x:y is taken"):
        emitters()


def emitter_class() -> object:
    from autoquant.planner.emit.comfyui import ComfyUi

    return ComfyUi()


def test_files_that_are_there_stay_unless_told_otherwise(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="holds files already"):
        INT8.emit("diffusers", tmp_path, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_other_versions_are_named_and_can_be_forced(tmp_path: Path) -> None:
    installed = package_versions()
    same = INT8.model_copy(update={"versions": {"torch": installed["torch"] + "+cu999"}})
    same.emit("cache-dit", tmp_path / "same")
    old = INT8.model_copy(update={"versions": installed | {"torch": "1.0", "nothing": "2"}})
    with pytest.raises(InputError, match=r"torch .* \(planned with 1\.0\), nothing is not install"):
        old.emit("cache-dit", tmp_path / "old")
    assert not (tmp_path / "old").exists()
    old.emit("cache-dit", tmp_path / "old", force=True)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"components": {"unet": PlannedComponent()}}, "names unet, which demo does not have"),
        ({"pipeline": PlannedPipeline(class_name="SanaPipeline", source="demo")}, "for a SanaPip"),
    ],
)
def test_a_plan_of_another_pipeline_is_refused(
    changes: dict[str, object], error: str, tmp_path: Path
) -> None:
    with pytest.raises(PlanFormatError, match=error):
        INT8.model_copy(update=changes).emit("diffusers", tmp_path / "out", force=True)


def test_a_pipeline_that_has_moved_is_named_as_the_source(
    demo_directory: Path, tmp_path: Path
) -> None:
    in_memory = PlannedPipeline(class_name="FluxPipeline", source="<in memory>")
    plan = INT8.model_copy(update={"pipeline": in_memory})
    with pytest.raises(InputError, match="made from a pipeline in memory"):
        plan.emit("diffusers", tmp_path / "out", force=True)
    plan.emit("diffusers", tmp_path / "out", source=str(demo_directory), force=True)
    assert str(demo_directory) in (tmp_path / "out/load_pipeline.py").read_text()


def test_the_layout_is_what_the_plan_loads_as(plan_for: PlanFor) -> None:
    part = PlannedComponent(scheme="torchao:int8wo", exclusions=("proj_out",), fuse_qkv=True)
    layout = read_layout(plan_for(transformer=part)).components
    assert set(layout) == {"transformer", "text_encoder", "text_encoder_2", "vae"}
    fused, apart = layout["transformer"], layout["transformer"].unfused
    assert "transformer_blocks.0.attn.to_qkv" in fused.quantized
    assert "transformer_blocks.0.attn.to_q" in apart.quantized
    assert fused.kept == ("proj_out",)
    assert layout["vae"].quantized == ()


def test_the_command_prints_what_is_lost(autoquant_command: Command, tmp_path: Path) -> None:
    plan = demo_plan(transformer="layerwise:float8_e5m2", text_encoder_2="bitsandbytes:nf4")
    plan.save(tmp_path / "plan.json")
    done = autoquant_command("emit", "plan.json", "--to", "comfyui")
    assert done.returncode == 0, done.stderr
    assert "Written to comfyui: workflow_api.json" in done.stdout
    assert "Lost: text_encoder_2 stays unquantized" in done.stdout
    assert "Next: put pipeline.safetensors" in done.stdout


def test_the_list_says_what_each_carries_of_a_plan(
    autoquant_command: Command, tmp_path: Path
) -> None:
    demo_plan(transformer="bitsandbytes:nf4").save(tmp_path / "plan.json")
    listed = json.loads(autoquant_command("emit", "plan.json", "--list", "--json").stdout)
    carried = {entry["target"]: entry for entry in listed}
    assert set(carried) == set(emitters())
    assert carried["diffusers"]["carries"] == "full"
    assert carried["cache-dit"]["carries"] == "partial"
    assert carried["comfyui"]["carries"] == "impossible"
    assert "bitsandbytes:nf4" in carried["comfyui"]["reason"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan.json",), "Name a plan and a target"),
        (("plan.json", "--to", "comfy"), "did you mean comfyui"),
        (("plan.json", "--to", "diffusers", "--out", "."), "is where the plan itself is"),
        (("plan.json", "--to", "diffusers", "--out", "taken"), "holds files already"),
        (("none.json", "--to", "diffusers"), "Cannot read the plan none.json"),
    ],
)
def test_wrong_input_is_one_line_and_exit_status_2(
    arguments: tuple[str, ...], message: str, autoquant_command: Command, tmp_path: Path
) -> None:
    INT8.save(tmp_path / "plan.json")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").touch()
    done = autoquant_command("emit", *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.rglob("*")} == {"plan.json", "taken", "mine.txt"}
