"""Plots and images in a real browser."""

from __future__ import annotations

from typing import Any

from tests.planner.report.conftest import Open
from tests.planner.report.driving import PHONE, middle
from tests.planner.report.recorded_run import CHOSEN


def split(page: Any) -> str:
    return str(page.locator(".compare").first.evaluate("e => e.style.getPropertyValue('--split')"))


def test_pointing_at_a_mark_names_the_choice(visit: Open) -> None:
    page = visit()
    page.locator("#trade-offs").scroll_into_view_if_needed()
    page.mouse.move(*middle(page, ".plot .mark-chosen"))
    tip = page.locator(".plot .tip").first
    assert tip.is_visible()
    assert tip.inner_text() == f"transformer {CHOSEN}: 14.00 GB, 4.20 s, loss 0.02; chosen"
    assert page.locator("tr.lit").inner_text().startswith(f"transformer {CHOSEN}")
    page.mouse.move(0, 0)
    assert tip.is_hidden()


def test_the_arrow_keys_walk_through_the_marks(visit: Open) -> None:
    page = visit()
    page.locator("svg[data-plot=memory] .mark[tabindex='0']").focus()
    tip = page.locator(".plot .tip").first
    assert "chosen" in tip.inner_text()
    page.keyboard.press("ArrowRight")
    assert "torchao:float8wo" in tip.inner_text()
    assert "misses memory by 1.00 GB" in tip.inner_text()
    assert page.locator("svg[data-plot=memory] .mark[tabindex='0']").count() == 1
    page.keyboard.press("Escape")
    assert tip.is_hidden()


def test_a_tap_names_the_choice(visit: Open) -> None:
    page = visit(**PHONE)
    page.locator("svg[data-plot=time] .mark-chosen").scroll_into_view_if_needed()
    page.touchscreen.tap(*middle(page, "svg[data-plot=time] .mark-chosen"))
    assert "chosen" in page.locator(".plot .tip").nth(1).inner_text()


def test_the_divider_follows_mouse_and_keyboard(visit: Open) -> None:
    page = visit()
    page.locator(".compare").first.scroll_into_view_if_needed()
    assert split(page) == "50%"
    box = page.locator(".compare").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 20, steps=4)
    page.mouse.up()
    assert split(page) == "25%"
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 20)
    assert split(page) == "25%"
    page.keyboard.press("ArrowRight")
    assert split(page) == "26%"
    page.keyboard.press("Home")
    assert split(page) == "0%"
    clip = page.locator(".planned").first.evaluate("e => getComputedStyle(e).clipPath")
    assert clip in {"inset(0px 0px 0px 0%)", "inset(0px)"}


def test_the_divider_follows_a_finger(visit: Open) -> None:
    page = visit(**PHONE)
    page.locator(".compare").first.scroll_into_view_if_needed()
    box = page.locator(".compare").first.bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2)
    assert split(page) == "80%"


def test_the_images_can_be_seen_side_by_side(visit: Open) -> None:
    page = visit()
    page.get_by_label("side by side").check()
    boxes = [page.locator(f".{name}").first.bounding_box() for name in ("reference", "planned")]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    assert boxes[0]["y"] == boxes[1]["y"]


def test_without_javascript_the_images_are_side_by_side(visit: Open) -> None:
    page = visit(java_script_enabled=False)
    assert page.locator(".planned").first.is_visible()
    assert page.get_by_text("The test needs JavaScript.").is_visible()
    assert page.get_by_role("button").locator("visible=true").count() == 0
