"""``--space FILE`` from the command to the plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoquant.errors import SpaceFileError, UnsupportedPipeline
from autoquant.planner.loading import DirectoryLoader, ObjectLoader
from autoquant.planner.preparation import prepare
from autoquant.planner.request import Request
from autoquant.planner.workload import WorkloadRequest
from tests.families import classic, modern
from tests.in_process import Command

SMALL = WorkloadRequest(prompts=("a red circle",), steps=1, height=64, width=64)


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "flux"
    classic.flux().save_pretrained(directory)
    return directory


def own_space(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_only_what_the_file_names_is_tried(flux: Path, tmp_path: Path) -> None:
    file = own_space(
        tmp_path / "own.yaml",
        "components:\n"
        '  transformer: {schemes: ["layerwise:float8_e4m3fn"], exclusions: [[proj_out]]}\n'
        "  text_encoder: {schemes: [none]}\n"
        "  text_encoder_2: {schemes: [none]}\n",
    )
    request = Request(
        pipeline=str(flux), workload=SMALL, metric="flip", download=False, space_file=file
    )
    prepared, _ = prepare(request, tmp_path)
    transformer = prepared.space.components["transformer"]
    assert transformer.schemes == ("none", "layerwise:float8_e4m3fn")
    assert transformer.exclusions == (("proj_out",),)


def test_a_pattern_without_a_layer_is_told_before_a_weight_is_loaded(
    flux: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*arguments: Any) -> None:
        raise AssertionError("a weight was loaded")

    monkeypatch.setattr(DirectoryLoader, "load", load)
    file = own_space(
        tmp_path / "own.yaml", "components:\n  transformer:\n    exclusions: [[blocks]]\n"
    )
    request = Request(pipeline=str(flux), metric="flip", download=False, space_file=file)
    with pytest.raises(SpaceFileError, match=r"own.yaml:3: 'blocks' matches no module"):
        prepare(request, tmp_path)


def test_the_command_prints_a_line_for_each_fault(
    autoquant_command: Command, tmp_path: Path
) -> None:
    own_space(tmp_path / "own.yaml", "components:\n  x: {scheme: 1}\n  y: {schemes: [int8]}\n")
    done = autoquant_command("suggest", "demo", "--vram=1", "--space=own.yaml")
    assert done.returncode == 2
    assert done.stderr == (
        "autoquant: own.yaml:2: unknown key 'scheme'; known: schemes, exclusions, fuse_qkv, "
        "mixed.\n"
    )


@pytest.mark.parametrize(
    "make",
    [classic.stable_diffusion, classic.hunyuan_dit, modern.qwen_image, modern.wan, modern.sana],
    ids=lambda make: make.__name__,
)
def test_an_outline_has_the_layers_of_the_model(make: Callable[[], Any], tmp_path: Path) -> None:
    import torch

    make().save_pretrained(tmp_path)
    loader = DirectoryLoader(tmp_path)
    for name in loader.sizes:
        outline, loaded = loader.outline(name), loader.load(name, torch.bfloat16)
        assert [path for path, _ in outline.named_modules()] == [
            path for path, _ in loaded.named_modules()
        ]
        assert all(weight.is_meta for weight in outline.parameters())


def test_an_adapter_that_is_no_lora_is_refused_with_what_to_do() -> None:
    pytest.importorskip("peft", reason="needs peft: pip install -e '.[test]'")
    pipeline = classic.flux()
    pipeline.transformer.peft_config = {"style": object()}  # what diffusers' add_adapter() leaves
    with pytest.raises(UnsupportedPipeline, match=r"style, which is no LoRA.*Fuse and save it"):
        ObjectLoader(pipeline)
