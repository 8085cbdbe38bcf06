"""The page as a whole in a real browser: hostile text, narrow screens, contrast, no images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autoquant.planner.plan import FailedTrial, PlannedComponent, SearchSummary
from tests.planner.report.conftest import Open
from tests.planner.report.driving import answer
from tests.planner.report.recorded_run import CHOSEN, PROMPTS, choices, recorded_plan

ATTACK = "</script></style><img src=x onerror=alert(1)><script>alert(2)</script>"
CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")


def hostile_plan() -> Any:
    return recorded_plan(
        prompts=(ATTACK, *PROMPTS[1:]),
        components={
            "transformer": PlannedComponent(scheme=CHOSEN, why=ATTACK),
            "text_encoder": PlannedComponent(scheme=f"x:{ATTACK}"),
        },
        search=SearchSummary(
            trials=1,
            pruned=0,
            failed=1,
            seconds=1.0,
            seed=0,
            rule=ATTACK,
            ties=(ATTACK,),
            notes=(ATTACK,),
            failures=(FailedTrial(components=choices(f"x:{ATTACK}"), reason=ATTACK),),
        ),
        versions={ATTACK: ATTACK},
    )


def test_what_looks_like_markup_is_shown_as_text(visit: Open) -> None:
    page = visit(hostile_plan())
    answer(page, right=5)
    assert ATTACK in page.locator("figcaption .prompt").all_text_contents()
    assert page.locator("script").count() == 1
    sources = page.locator("img").evaluate_all("all => all.map(image => image.src)")
    assert all(source.startswith("data:image/") for source in sources)


def test_markup_that_gets_in_all_the_same_does_not_run(chromium: Any, plain_report: Path) -> None:
    page = chromium.new_page()
    page.goto(plain_report.as_uri())
    blocked = page.evaluate(
        """() => new Promise((resolve) => {
            const names = [];
            document.addEventListener("securitypolicyviolation", (event) => {
              names.push(event.effectiveDirective);
            });
            const probe = document.createElement("div");
            probe.innerHTML = `<img src="data:," onerror="document.title = 'ran'">`
              + `<img src="https://example.org/x.png">`;
            document.body.append(probe);
            const script = document.createElement("script");
            script.textContent = "document.title = 'ran'";
            document.body.append(script);
            setTimeout(() => resolve([document.title, names.sort()]), 300);
        })"""
    )
    page.close()
    assert blocked[0] != "ran"
    assert set(blocked[1]) == {"img-src", "script-src-attr", "script-src-elem"}


def long_plan() -> Any:
    word = "x" * 300
    return recorded_plan(
        prompts=(word, *PROMPTS[1:]),
        components={
            "transformer": PlannedComponent(
                scheme=f"torchao:{word}", exclusions=(word, "a.b", "c"), why=word
            )
        },
        search=SearchSummary(
            trials=1, pruned=0, failed=0, seconds=1, seed=0, ties=(word,), notes=(word,)
        ),
        versions={word: "1"},
    )


@pytest.mark.parametrize("plan", [recorded_plan(), long_plan()], ids=["plain", "long"])
def test_no_width_needs_sideways_scrolling(visit: Open, plan: Any) -> None:
    page = visit(plan)
    page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true; })")
    for view in ("slider", "side by side", "every candidate"):
        page.get_by_label(view).check()
        for width in (320, 360, 700, 1280):
            page.set_viewport_size({"width": width, "height": 700})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, view


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_background(visit: Open, scheme: str) -> None:
    page = visit(color_scheme=scheme)
    answer(page, right=3)
    assert page.evaluate(CONTRAST) == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")


def test_a_report_without_images_says_so(visit: Open) -> None:
    page = visit(images=False)
    assert "There are no images to show." in page.locator("#images").inner_text()
    assert "12 image files are missing" in page.locator("#images").inner_text()
    assert page.locator("#blind-test").count() == 0
    assert page.locator("nav a").count() == 8
