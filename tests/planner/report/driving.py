"""What the browser tests do on a page."""

from __future__ import annotations

from typing import Any

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


# What the candidate drew that the test asks about.
_PLANNED = """[...drawn.values()].map(
    (shots) => shots.get(document.querySelector("#blind-test select").value).planned)"""


def middle(page: Any, selector: str) -> tuple[float, float]:
    box = page.locator(selector).first.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def answer(page: Any, *, right: int) -> None:
    """Take the blind test, with ``right`` right answers and then wrong ones."""
    planned = set(page.evaluate(_PLANNED))
    again = page.get_by_role("button", name="again")
    if again.is_visible():
        again.click()
    page.get_by_role("button", name="Start").click()
    asked = 0
    while page.locator("[data-step=ask]").is_visible():
        first_is_quantized = page.locator("[data-shown='0']").get_attribute("src") in planned
        wants_first = first_is_quantized == (asked < right)
        page.locator(f"[data-answer='{0 if wants_first else 1}']").click()
        asked += 1
