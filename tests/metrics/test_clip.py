from __future__ import annotations

import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from autoquant.errors import MetricUnavailable
from autoquant.metrics.clip import make
from autoquant.metrics.fidelity import GUARDS, available_metrics, losses_of, score
from autoquant.metrics.images import Images
from autoquant.metrics.metric import Metric, MetricSettings
from tests.metrics.conftest import PROMPTS
from tests.metrics.contract import check_loss
from tests.metrics.test_lpips_weights import Bomb
from tests.metrics.tiny_clip import make_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def metrics(folder: Path) -> dict[str, Metric]:
    usable, missing = available_metrics(
        ["clip"], (64, 64), allow_download=False, clip_model=f"local-dir:{folder}"
    )
    assert missing == {}
    return usable


def test_one_model_gives_three_guards(metrics: dict[str, Metric], folder: Path) -> None:
    assert set(metrics) == GUARDS
    [identity] = {metric.identity for metric in metrics.values()}
    assert re.fullmatch(rf"clip: {folder.name} [0-9a-f]{{8}}", identity)


def test_likeness_falls_with_noise(
    metrics: dict[str, Metric], pictures: Images, noisy: Callable[[float], Images]
) -> None:
    check_loss(metrics["clip_image"], pictures, noisy, abs=1e-6)


def test_the_delta_is_the_difference_of_the_scores(
    metrics: dict[str, Metric], pictures: Images, noisy: Callable[[float], Images]
) -> None:
    candidate = noisy(0.2)
    ours = metrics["clip_text"].per_image(pictures, candidate, PROMPTS)
    theirs = metrics["clip_text"].per_image(candidate, pictures, PROMPTS)
    delta = metrics["clip_delta"].per_image(pictures, candidate, PROMPTS)
    assert delta == pytest.approx([a - b for a, b in zip(ours, theirs, strict=True)], abs=1e-5)
    assert max(map(abs, delta)) > 1e-3
    assert all(-100 <= points <= 100 for points in ours)
    same = score(metrics["clip_delta"], pictures, pictures, PROMPTS)
    assert losses_of("clip_delta", same) == (0.0, 0.0, 0.0)


def test_the_prompt_matters_and_a_long_one_is_cut(
    metrics: dict[str, Metric], pictures: Images
) -> None:
    text = metrics["clip_text"]
    assert text.per_image(pictures, pictures, PROMPTS) != text.per_image(
        pictures, pictures, PROMPTS[::-1]
    )
    assert len(text.per_image(pictures, pictures, ["very long " * 200] * 3)) == 3


def test_each_image_is_encoded_once(
    metrics: dict[str, Metric], pictures: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, delta = metrics["clip_image"], metrics["clip_delta"]
    fresh = pictures[:, ::-1].copy()
    model = image._encoder._model  # type: ignore[attr-defined]
    encode, batches = model.encode_image, []
    monkeypatch.setattr(model, "encode_image", lambda x: batches.append(x) or encode(x))
    image.per_image(pictures, fresh, PROMPTS)
    delta.per_image(pictures, fresh, PROMPTS)
    assert 3 <= len(batches) <= 6


def test_weights_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "open_clip_model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(MetricUnavailable, match=f"open_clip cannot load {broken}"):
        make(MetricSettings((64, 64), clip_model=f"local-dir:{broken}"))


def test_a_cached_checkpoint_that_would_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker, bomb = tmp_path / "it_ran", tmp_path / "open_clip_pytorch_model.bin"
    torch.save({"visual.proj": Bomb(marker)}, bomb)

    def cached(repository: str, name: str) -> str | None:
        return str(bomb) if name == bomb.name else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    with pytest.raises(MetricUnavailable, match=f"open_clip cannot load {bomb}") as caught:
        make(MetricSettings((64, 64)))
    assert isinstance(caught.value.__cause__, pickle.UnpicklingError)
    assert not marker.exists()
