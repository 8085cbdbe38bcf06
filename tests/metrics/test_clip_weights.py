from __future__ import annotations

import json
import time
from pathlib import Path

import huggingface_hub
import open_clip
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from autoquant.errors import MetricUnavailable
from autoquant.metrics import clip_weights
from autoquant.metrics.clip_weights import find_clip
from autoquant.metrics.metric import DEFAULT_CLIP_MODEL

REPOSITORY = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def reachable(empty_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_weights, "require_reachable", lambda url, way_out: None)


@pytest.mark.usefixtures("empty_cache")
def test_without_leave_to_download_the_way_out_is_said() -> None:
    with pytest.raises(MetricUnavailable) as caught:
        find_clip(DEFAULT_CLIP_MODEL, allow_download=False)
    assert "downloads are not allowed" in str(caught.value)
    assert f"hf download {REPOSITORY} open_clip_model.safetensors" in str(caught.value)
    assert "clip_model='local-dir:PATH'" in str(caught.value)


@pytest.mark.usefixtures("empty_cache")
def test_offline_mode_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MetricUnavailable, match="HF_HUB_OFFLINE is set; run 'hf download"):
        find_clip(DEFAULT_CLIP_MODEL, allow_download=True)


@pytest.mark.usefixtures("empty_cache")
def test_a_hub_that_does_not_answer_costs_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "*")
    start = time.perf_counter()
    with pytest.raises(MetricUnavailable, match=r"http://127.0.0.1:9 does not answer"):
        find_clip(DEFAULT_CLIP_MODEL, allow_download=True)
    assert time.perf_counter() - start < 5


@pytest.mark.usefixtures("empty_cache")
def test_a_cached_file_is_taken_without_asking(tmp_path: Path) -> None:
    snapshot = tmp_path / f"models--{REPOSITORY.replace('/', '--')}" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    weights = snapshot / "open_clip_model.safetensors"
    weights.touch()
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc")
    source = find_clip(DEFAULT_CLIP_MODEL, allow_download=False)
    assert (source.model_name, source.weights) == ("ViT-B-32", weights)
    assert source.identity == DEFAULT_CLIP_MODEL
    assert source.overrides["image_mean"] == open_clip.OPENAI_DATASET_MEAN
    assert source.overrides["force_quick_gelu"] is False
    # The activation that a checkpoint was trained with is told by its tag alone.
    assert open_clip.get_pretrained_cfg("ViT-B-32", "openai")["quick_gelu"] is True


@pytest.mark.usefixtures("reachable")
def test_an_older_repository_has_the_second_file_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repository: str, name: str) -> str:
        asked.append((repository, name))
        if name.endswith(".safetensors"):
            raise EntryNotFoundError("404")
        return f"/there/{name}"

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    source = find_clip(DEFAULT_CLIP_MODEL, allow_download=True)
    assert source.weights == Path("/there/open_clip_pytorch_model.bin")
    assert [repository for repository, _ in asked] == [REPOSITORY] * 2


@pytest.mark.usefixtures("reachable")
@pytest.mark.parametrize("error", [LocalEntryNotFoundError("gone"), OSError("gone")])
def test_a_broken_connection_is_no_missing_file(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def download(repository: str, name: str) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(MetricUnavailable, match=r"could not be fetched \(gone\); run 'hf download"):
        find_clip(DEFAULT_CLIP_MODEL, allow_download=True)


@pytest.mark.parametrize("model", ["ViT-B-32", "ViT-B-32:nope", "nope:openai", "hf-hub:org/name"])
def test_a_model_that_is_none_is_refused(model: str) -> None:
    with pytest.raises(MetricUnavailable, match=f"'{model}' is not 'local-dir:PATH' nor one of"):
        find_clip(model, allow_download=False)


@pytest.mark.parametrize("model", ["ViT-B-16-SigLIP:webli", "roberta-ViT-B-32:laion2b_s12b_b32k"])
def test_a_model_whose_text_part_lies_on_the_hub_is_refused(model: str) -> None:
    with pytest.raises(MetricUnavailable, match=r"takes its text part from .* on the hub"):
        find_clip(model, allow_download=True)


def test_a_folder_that_is_none_says_what_it_lacks(tmp_path: Path) -> None:
    model = f"local-dir:{tmp_path}"
    with pytest.raises(MetricUnavailable, match=r"it has no open_clip_config\.json"):
        find_clip(model, allow_download=False)
    config = tmp_path / "open_clip_config.json"
    config.write_text("{}")
    with pytest.raises(MetricUnavailable, match="has no model_cfg with a text_cfg"):
        find_clip(model, allow_download=False)
    config.write_text(json.dumps({"model_cfg": {"text_cfg": {"hf_model_name": "roberta-base"}}}))
    with pytest.raises(MetricUnavailable, match="takes its text part from 'roberta-base'"):
        find_clip(model, allow_download=False)
    config.write_text(json.dumps({"model_cfg": {"text_cfg": {}}}))
    with pytest.raises(MetricUnavailable, match=r"has no open_clip_model\.safetensors"):
        find_clip(model, allow_download=False)
