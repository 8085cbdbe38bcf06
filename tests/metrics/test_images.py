from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.errors import DegenerateImage, InputError
from autoquant.metrics.images import Images, check_images, displayed, load_png, save_png
from tests.metrics.conftest import PROMPTS


def flat(value: float, size: int = 16) -> Images:
    return np.full((1, size, size, 3), value, dtype=np.float32)


def with_one(images: Images, index: tuple[int, ...], value: float) -> Images:
    changed = images.copy()
    changed[index] = value
    return changed


def test_pictures_pass(pictures: Images) -> None:
    check_images(pictures, PROMPTS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_is_named_by_prompt(pictures: Images, value: float) -> None:
    broken = with_one(pictures, (1, 5, 5, 0), value)
    with pytest.raises(DegenerateImage, match=r"prompt 1 \('a green square'\) is not finite in 1 "):
        check_images(broken, PROMPTS)


@given(st.floats(0, 0.019))
def test_anything_too_dark_to_see_is_black(value: float) -> None:
    with pytest.raises(DegenerateImage, match="is black: its brightest value"):
        check_images(flat(value), ["x"])


@given(st.floats(0.03, 1), st.integers(0, 2**32 - 1))
def test_one_colour_rounded_to_8_bits_is_constant(value: float, seed: int) -> None:
    dither = np.random.default_rng(seed).uniform(-0.5, 0.5, (1, 16, 16, 3)) / 255
    image = displayed(np.clip(value + dither, 0, 1).astype(np.float32))
    with pytest.raises(DegenerateImage, match="is constant: its values span"):
        check_images(image, ["x"])


@given(
    st.floats(0, 1),
    st.floats(0.025, 1),
    st.tuples(st.just(0), st.integers(0, 15), st.integers(0, 15), st.integers(0, 2)),
)
def test_one_visible_pixel_makes_a_picture(
    background: float, spot: float, where: tuple[int, ...]
) -> None:
    image = with_one(flat(background), where, spot)
    if abs(np.float32(background) - np.float32(spot)) >= 2.5 / 255:
        check_images(image, ["a star at night, a speck on paper"])


def test_a_faint_gradient_is_a_picture() -> None:
    fog = flat(0.8) + np.linspace(0, 3 / 255, 16, dtype=np.float32)[None, None, :, None]
    check_images(fog, ["fog"])


def test_a_blank_page_that_the_reference_draws_too_is_no_fault() -> None:
    check_images(flat(1.0), ["a blank page"], reference=flat(0.99))
    with pytest.raises(DegenerateImage, match="not finite"):
        check_images(flat(np.nan), ["a blank page"], reference=flat(0.99))
    gradient = flat(0.5) + np.linspace(0, 0.4, 16, dtype=np.float32)[None, :, None, None]
    with pytest.raises(DegenerateImage, match="constant"):
        check_images(flat(1.0), ["a cat"], reference=gradient)


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (3, 8, 8, 4), (3, 8, 8), (3, 3, 8, 8)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"shape \(3, height, width, 3\)"):
        check_images(np.zeros(shape, dtype=np.float32), PROMPTS)


def test_a_png_holds_what_is_displayed_and_leaves_nothing_else(
    pictures: Images, tmp_path: Path
) -> None:
    paths = save_png(pictures, tmp_path / "made" / "here")
    assert [path.name for path in paths] == ["0000.png", "0001.png", "0002.png"]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == [p.name for p in paths]
    np.testing.assert_array_equal(load_png(paths), displayed(pictures))
    np.testing.assert_array_equal(displayed(displayed(pictures)), displayed(pictures))
    assert np.abs(displayed(pictures) - pictures).max() <= 0.5 / 255 + 1e-6


def test_values_beyond_the_ends_are_clipped() -> None:
    np.testing.assert_array_equal(displayed(flat(1.5)), flat(1.0))
    np.testing.assert_array_equal(displayed(flat(-0.5)), flat(0.0))


def test_files_that_are_no_images_or_do_not_fit_are_named(tmp_path: Path) -> None:
    [small] = save_png(flat(0.5, size=8), tmp_path / "small")
    [large] = save_png(flat(0.5, size=9), tmp_path / "large")
    with pytest.raises(InputError, match=r"one size: .*large.*\(9, 9\).*\(8, 8\)"):
        load_png([small, large])
    with pytest.raises(InputError, match=r"Cannot read the image .*absent\.png"):
        load_png([tmp_path / "absent.png"])
    text = tmp_path / "text.png"
    text.write_text("no picture")
    with pytest.raises(InputError, match=r"Cannot read the image .*text\.png"):
        load_png([text])
    with pytest.raises(InputError, match="at least one"):
        load_png([])
