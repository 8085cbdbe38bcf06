"""The report in a real browser. The ``visit`` fixture fails on console errors and requests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from autoquant.planner.plan import FailedTrial, PlannedComponent, SearchSummary
from tests.planner.report.conftest import Open
from tests.planner.report.recorded_run import CHOSEN, PROMPTS, choices, recorded_plan

ATTACK = "</script></style><img src=x onerror=alert(1)><script>alert(2)</script>"
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")


def split(page: Any) -> str:
    return str(page.locator(".compare").first.evaluate("e => e.style.getPropertyValue('--split')"))


def middle(page: Any, selector: str) -> tuple[float, float]:
    box = page.locator(selector).first.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def answer(page: Any, *, right: int) -> None:
    """Take the blind test, with ``right`` right answers and then wrong ones."""
    planned = set(page.locator(".pair .planned img").evaluate_all("all => all.map(i => i.src)"))
    page.get_by_role("button", name=re.compile("Start|again")).locator("visible=true").click()
    asked = 0
    while page.locator("[data-step=ask]").is_visible():
        first_is_quantized = page.locator("[data-shown='0']").get_attribute("src") in planned
        wants_first = first_is_quantized == (asked < right)
        page.locator(f"[data-answer='{0 if wants_first else 1}']").click()
        asked += 1


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


@pytest.mark.parametrize(
    ("right", "judgement"),
    [
        (5, "You can very likely tell them apart."),
        (4, "Not enough to say that you can tell them apart."),
        (0, "Not enough to say that you can tell them apart."),
    ],
)
def test_the_blind_test_counts_and_scores_against_chance(
    visit: Open, right: int, judgement: str
) -> None:
    page = visit()
    answer(page, right=right)
    assert page.locator("[data-score]").inner_text() == f"{right} of 5 right"
    assert page.locator("[data-verdict]").inner_text() == judgement
    shown = re.search(r"p = ([\d.e-]+\d)", page.locator("[data-explanation]").inner_text())
    assert shown is not None
    exact = stats.binomtest(right, 5, 0.5, alternative="greater").pvalue
    assert float(shown[1]) == pytest.approx(exact, rel=0.05)
    assert page.locator("[data-answers] li.right").count() == right
    assert "You had seen the answers" not in page.locator("[data-explanation]").inner_text()
    answer(page, right=5)
    assert page.locator("[data-score]").inner_text() == "5 of 5 right"
    assert "You had seen the answers" in page.locator("[data-explanation]").inner_text()


def test_the_chance_of_guessing_is_exact(visit: Open) -> None:
    page = visit()
    for n in (1, 5, 16, 64, 500):
        for right in {0, 1, n // 2, n - 1, n}:
            shown = page.evaluate(f"chanceOfGuessing({right}, {n})")
            exact = stats.binomtest(right, n, 0.5, alternative="greater").pvalue
            assert shown == pytest.approx(exact, rel=1e-9), (right, n)
    assert page.evaluate("rightNeeded(4)") is None
    assert page.evaluate("rightNeeded(10)") == 9


def test_the_order_is_random_and_no_pair_is_asked_twice(visit: Open) -> None:
    page = visit()
    orders = set()
    first_was_quantized = 0
    for _ in range(4):
        answer(page, right=0)
        lines = page.locator("[data-answers] li").all_inner_texts()
        assert sorted(line.rpartition(" · ")[2] for line in lines) == sorted(PROMPTS[:-1])
        orders.add(tuple(line.rpartition(" · ")[2] for line in lines))
        first_was_quantized += sum("the first was quantized" in line for line in lines)
    assert len(orders) > 1
    # All 20 alike has a chance of 1 in 500,000.
    assert 0 < first_was_quantized < 20


def test_few_pairs_are_said_to_prove_nothing(visit: Open) -> None:
    page = visit(recorded_plan(prompts=PROMPTS[:3]))
    assert "So few rounds cannot prove anything" in page.locator("#blind-test").inner_text()
    answer(page, right=2)
    assert page.locator("[data-verdict]").inner_text() == "Too few rounds to know."


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
    for view in ("slider", "side by side"):
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
