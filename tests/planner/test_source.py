from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoquant import demo
from autoquant.errors import InputError, UnsupportedPipeline
from autoquant.planner.source import (
    PipelineSource,
    find_source,
    local_directory,
    read_model_index,
    without_home,
)


def model_index(directory: Path, **entries: object) -> Path:
    (directory / "model_index.json").write_text(json.dumps(entries))
    return directory


def test_demo_names_the_embedded_pipeline() -> None:
    source = find_source("demo")
    assert source.location == "demo"
    assert local_directory(source) == demo.pipeline_directory()


def test_a_directory_is_named_without_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    source = find_source(str(tmp_path / "models"))
    assert source.location == "~/models"
    assert local_directory(source) == tmp_path / "models"
    assert without_home(Path("/elsewhere")) == "/elsewhere"


def test_a_hub_id_keeps_its_revision() -> None:
    assert find_source("owner/name", revision="abc") == PipelineSource(
        location="owner/name", revision="abc"
    )


@pytest.mark.parametrize("model", ["no/such/path", "./missing", "justaname", "", "a/b/c"])
def test_what_is_neither_directory_nor_hub_id_is_refused(model: str) -> None:
    with pytest.raises(InputError, match="a hub id looks like"):
        find_source(model)


def test_a_single_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(UnsupportedPipeline, match="is a single file"):
        find_source(str(file))


def test_a_hub_id_that_cannot_be_reached_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"nobody/nothing.*(cache|hub)"):
        local_directory(find_source("nobody/nothing"), download=False)


def test_an_unreachable_hub_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9 does not answer .*local directory"):
        local_directory(find_source("nobody/nothing"), download=False)


def test_a_directory_that_is_no_pipeline_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedPipeline, match="has no model_index"):
        read_model_index(tmp_path)


def test_a_damaged_index_is_named(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "Flux')
    with pytest.raises(UnsupportedPipeline, match="cannot be read"):
        read_model_index(tmp_path)


@pytest.mark.parametrize(
    "entries",
    [
        {"_class_name": ["custom.py", "MyPipeline"]},
        {"_class_name": "os.system"},
        {"_class_name": "FluxPipeline", "transformer": ["evil", "Model"]},
        {"_class_name": "FluxPipeline", "transformer": ["diffusers", "__import__('os')"]},
        {"_class_name": "FluxPipeline", "../x": ["diffusers", "FluxTransformer2DModel"]},
    ],
)
def test_code_from_outside_is_never_named_to_a_loader(
    tmp_path: Path, entries: dict[str, object]
) -> None:
    with pytest.raises(UnsupportedPipeline):
        read_model_index(model_index(tmp_path, **entries))


def test_components_are_read_with_their_libraries(tmp_path: Path) -> None:
    index = read_model_index(
        model_index(
            tmp_path,
            _class_name="StableDiffusionPipeline",
            unet=["diffusers", "UNet2DConditionModel"],
            safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
            feature_extractor=[None, None],
            requires_safety_checker=True,
        )
    )
    assert index.components == {
        "unet": ("diffusers", "UNet2DConditionModel"),
        "safety_checker": ("stable_diffusion", "StableDiffusionSafetyChecker"),
    }


def test_settings_of_a_pipeline_are_no_components(tmp_path: Path) -> None:
    entries = {"text_encoder": ["transformers", "Qwen3Model"], "patch_size": 2}
    index = model_index(tmp_path, _class_name="Krea2Pipeline", select_layers=[1, 2], **entries)
    assert set(read_model_index(index).components) == {"text_encoder"}
