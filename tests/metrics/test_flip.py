from __future__ import annotations

from collections.abc import Callable

import numpy as np

from autoquant.metrics.flip import Flip
from autoquant.metrics.images import Images
from tests.metrics.conftest import PROMPTS
from tests.metrics.contract import check_loss


def test_it_is_a_loss_that_grows_with_noise(
    pictures: Images, noisy: Callable[[float], Images]
) -> None:
    check_loss(Flip(), pictures, noisy)


def test_values_lie_between_0_and_1(pictures: Images) -> None:
    black, white = np.zeros_like(pictures), np.ones_like(pictures)
    assert Flip().per_image(pictures, pictures, PROMPTS) == [0.0] * 3
    for value in Flip().per_image(black, white, PROMPTS):
        assert 0.9 < value <= 1


def test_views_of_an_array_are_read_right(pictures: Images) -> None:
    turned = pictures[:, ::-1]
    assert Flip().per_image(pictures, turned, PROMPTS) == Flip().per_image(
        pictures, np.ascontiguousarray(turned), PROMPTS
    )
