from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata

import numpy as np
import pytest

from autoquant.errors import CandidateFailed, InputError, MetricUnavailable
from autoquant.metrics import fidelity
from autoquant.metrics.fidelity import available_metrics, deciding_metric, score
from autoquant.metrics.images import Images
from autoquant.metrics.metric import Metric, MetricSettings
from tests.metrics.conftest import PROMPTS

SIZE = (64, 64)


class Listed:
    """A metric that answers what it was told."""

    identity = "test"

    def __init__(self, *values: float, name: str = "listed", lower_is_better: bool = True) -> None:
        self.values = list(values)
        self.name = name
        self.lower_is_better = lower_is_better
        self.seen: list[Images] = []

    def per_image(
        self, reference: Images, candidate: Images, prompts: Sequence[str]
    ) -> list[float]:
        self.seen = [reference, candidate]
        return self.values


def plugin(settings: MetricSettings) -> Sequence[Metric]:
    return [Listed(name="plugged")]


def upside_down(settings: MetricSettings) -> Sequence[Metric]:
    return [Listed(name="upside_down", lower_is_better=False)]


def install(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    entry_point = metadata.EntryPoint(name, value, "autoquant.metrics")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [entry_point])


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, name: None)


@pytest.mark.usefixtures("no_weights")
def test_without_weights_three_metrics_remain_and_each_other_has_its_reason() -> None:
    usable, missing = available_metrics(None, SIZE, allow_download=False)
    assert set(usable) == {"psnr", "ssim", "flip"}
    assert {name: metric.name for name, metric in usable.items()} == {n: n for n in usable}
    assert "alexnet-owt-7be5be79.pth" in missing["lpips"]
    assert "hf download laion/CLIP-ViT-B-32-laion2B-s34B-b79K" in missing["clip"]


@pytest.mark.usefixtures("no_weights")
def test_only_what_is_requested_is_made() -> None:
    usable, missing = available_metrics(["psnr", "flip", "psnr"], SIZE, allow_download=False)
    assert list(usable) == ["psnr", "flip"]
    assert missing == {}
    _, missing = available_metrics(["clip_delta", "clip_image"], SIZE, allow_download=False)
    assert set(missing) == {"clip"}


def test_an_unknown_request_names_the_nearest() -> None:
    with pytest.raises(MetricUnavailable, match="'lpisp' is unknown; did you mean 'lpips'"):
        available_metrics(["lpisp"], SIZE, allow_download=False)


def test_auto_is_lpips_where_it_can_be_had_else_flip() -> None:
    flip, lpips = Listed(name="flip"), Listed(name="lpips")
    assert deciding_metric("auto", {"flip": flip, "lpips": lpips}, {}) == "lpips"
    assert deciding_metric("auto", {"flip": flip}, {"lpips": "no weights"}) == "flip"
    with pytest.raises(MetricUnavailable, match="'flip' cannot be had: broken"):
        deciding_metric("auto", {}, {"flip": "broken"})


def test_a_metric_asked_for_by_name_is_that_one_or_an_error() -> None:
    usable = {"flip": Listed(name="flip"), "psnr": Listed(name="psnr")}
    missing = {"lpips": "it needs X; put X into Y."}
    assert deciding_metric("psnr", usable, missing) == "psnr"
    with pytest.raises(MetricUnavailable, match="'lpips' cannot be had: it needs X; put X into Y"):
        deciding_metric("lpips", usable, missing)
    with pytest.raises(MetricUnavailable, match="'filp' is unknown; did you mean 'flip'"):
        deciding_metric("filp", usable, missing)
    with pytest.raises(MetricUnavailable, match="known: auto, flip, lpips, psnr"):
        deciding_metric("zzz", usable, missing)


@pytest.mark.parametrize("guard", ["clip", "clip_text", "clip_delta", "clip_image"])
def test_a_guard_cannot_decide(guard: str) -> None:
    usable = {"flip": Listed(name="flip"), "clip_text": Listed(name="clip_text")}
    with pytest.raises(
        MetricUnavailable, match=r"cannot decide a study.*one of: auto, lpips, flip, ssim, psnr\."
    ):
        deciding_metric(guard, usable, {})


def test_a_metric_of_another_package_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "plugged", f"{__name__}:plugin")
    usable, missing = available_metrics(["plugged"], SIZE, allow_download=False)
    assert list(usable) == ["plugged"]
    assert missing == {}
    assert deciding_metric("plugged", usable, missing) == "plugged"


def test_a_broken_or_unfit_metric_of_another_package_is_missing_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, "gone", "no_such_module_anywhere:make")
    assert "no_such_module" in available_metrics(["gone"], SIZE, allow_download=False)[1]["gone"]
    install(monkeypatch, "upside_down", f"{__name__}:upside_down")
    usable, missing = available_metrics(["upside_down"], SIZE, allow_download=False)
    assert usable == {}
    assert "must be a loss" in missing["upside_down"]


def test_another_package_cannot_replace_a_built_in_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "flip", f"{__name__}:plugin")
    with pytest.raises(MetricUnavailable, match=r"'flip' of .*has a name that is taken"):
        available_metrics(["psnr"], SIZE, allow_download=False)


def test_a_score_says_mean_interval_and_worst(pictures: Images) -> None:
    found = score(Listed(0.1, 0.4, 0.1), pictures, pictures, PROMPTS)
    assert found.mean == pytest.approx(0.2)
    assert found.low is not None
    assert found.high is not None
    assert 0.1 <= found.low < 0.2 < found.high <= 0.4
    assert (found.worst, found.worst_index) == (0.4, 1)
    assert found.per_image == (0.1, 0.4, 0.1)
    upwards = score(Listed(30.0, 20.0, 40.0, lower_is_better=False), pictures, pictures, PROMPTS)
    assert (upwards.worst, upwards.worst_index) == (20.0, 1)


def test_one_image_has_no_interval(pictures: Images) -> None:
    found = score(Listed(0.1), pictures[:1], pictures[:1], PROMPTS[:1])
    assert (found.mean, found.low, found.high) == (0.1, None, None)


def test_a_metric_sees_float32_within_0_and_1(pictures: Images) -> None:
    metric = Listed(0.0, 0.0, 0.0)
    score(metric, pictures, pictures.astype(np.float64) * 3 - 1, PROMPTS)
    for images in metric.seen:
        assert images.dtype == np.float32
        assert images.min() >= 0
        assert images.max() <= 1


def test_images_that_cannot_be_compared(pictures: Images) -> None:
    metric = Listed(0.0, 0.0, 0.0)
    with pytest.raises(InputError, match=r"shape \(3, height, width, 3\)"):
        score(metric, pictures[:2], pictures, PROMPTS)
    with pytest.raises(CandidateFailed, match=r"\(3, 32, 64, 3\), the reference has \(3, 64, 64"):
        score(metric, pictures, pictures[:, :32], PROMPTS)
    with pytest.raises(CandidateFailed, match=r"'listed' is nan for prompt 1 \('a green square'\)"):
        score(Listed(0.0, float("nan"), 0.0), pictures, pictures, PROMPTS)


def test_a_metric_that_cannot_take_an_image_fails_the_candidate_and_not_the_search(
    pictures: Images,
) -> None:
    class Picky(Listed):
        def per_image(
            self, reference: Images, candidate: Images, prompts: Sequence[str]
        ) -> list[float]:
            raise ValueError(f"image {len(prompts) - 1} has no edges")

    with pytest.raises(CandidateFailed, match="'listed' failed: ValueError: image 2 has no edges"):
        score(Picky(), pictures, pictures, PROMPTS)


def test_every_built_in_module_makes_metrics_of_its_family() -> None:
    for family, module in fidelity._BUILT_IN.items():
        assert module == f"autoquant.metrics.{family}"
