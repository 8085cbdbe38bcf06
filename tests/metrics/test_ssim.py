from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from autoquant.errors import MetricUnavailable
from autoquant.metrics.images import Images
from autoquant.metrics.metric import MetricSettings
from autoquant.metrics.ssim import Ssim, make
from tests.metrics.conftest import PROMPTS
from tests.metrics.contract import check_loss


def test_it_is_a_loss_that_grows_with_noise(
    pictures: Images, noisy: Callable[[float], Images]
) -> None:
    check_loss(Ssim(), pictures, noisy)


def test_it_agrees_with_torchmetrics(pictures: Images, noisy: Callable[[float], Images]) -> None:
    ours, theirs = (
        torch.from_numpy(images).double().permute(0, 3, 1, 2) for images in (noisy(0.05), pictures)
    )
    expected = structural_similarity_index_measure(
        ours, theirs, data_range=1.0, reduction="none"
    ).tolist()
    assert Ssim().per_image(pictures, noisy(0.05), PROMPTS) == pytest.approx(expected, abs=1e-9)


def test_a_structure_turned_round_is_no_likeness(pictures: Images) -> None:
    assert max(Ssim().per_image(pictures, 1 - pictures, PROMPTS)) < 0.6


def test_flat_pictures_are_exactly_alike() -> None:
    flat = np.full((1, 16, 16, 3), 0.37, dtype=np.float32)
    assert Ssim().per_image(flat, flat, ["x"]) == pytest.approx([1.0], abs=1e-12)


def test_images_without_a_whole_window_are_refused() -> None:
    assert make(MetricSettings((11, 64)))[0].name == "ssim"
    with pytest.raises(MetricUnavailable, match="at least 11 pixels a side, images are 10x64"):
        make(MetricSettings((10, 64)))
