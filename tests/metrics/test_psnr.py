from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from autoquant.metrics.images import Images
from autoquant.metrics.psnr import Psnr
from tests.metrics.conftest import PROMPTS
from tests.metrics.contract import check_loss


def test_it_is_a_loss_that_grows_with_noise(
    pictures: Images, noisy: Callable[[float], Images]
) -> None:
    check_loss(Psnr(), pictures, noisy)


def test_the_formula() -> None:
    reference = np.full((1, 8, 8, 3), 0.5, dtype=np.float32)
    assert Psnr().per_image(reference, reference + np.float32(0.1), ["x"]) == pytest.approx(
        [20.0], abs=1e-4
    )


def test_identical_and_nearly_identical_images_are_capped(pictures: Images) -> None:
    assert Psnr().per_image(pictures, pictures, PROMPTS) == [100.0] * 3
    assert Psnr().per_image(pictures, pictures + np.float32(1e-7), PROMPTS) == [100.0] * 3
