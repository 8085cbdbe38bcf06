"""The images of the other candidates: which are shown, and what a viewer can do with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoquant.planner.candidate_images import FOLDER
from autoquant.planner.plan import Plan
from autoquant.planner.report import alternatives, write_report
from autoquant.planner.report.alternatives import Alternatives, make_alternatives
from autoquant.planner.report.evidence import read_evidence
from autoquant.planner.report.pictures import make_gallery
from tests.planner.report.conftest import Open
from tests.planner.report.driving import answer
from tests.planner.report.recorded_run import recorded_plan, write_run

FLOAT8, NF4 = "transformer torchao:float8wo", "transformer bitsandbytes:nf4"


def alternatives_of(run: Path) -> Alternatives:
    evidence = read_evidence(run)
    return make_alternatives(evidence, make_gallery(evidence))


def test_every_candidate_is_shown_with_its_own_scores(tmp_path: Path) -> None:
    made = alternatives_of(write_run(tmp_path))
    assert [each.point.name for each in made.shown] == [FLOAT8, NF4]
    assert made.shown[1].by_index[4].caption == "seed 0 · flip 0.168 · ssim 0.832"
    assert [each.picture.identical for each in made.shown[0].pictures] == [True] + [False] * 5


def test_a_candidate_without_all_images_is_not_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    for folder in (run / FOLDER).iterdir():
        if "nf4" in folder.name:
            (folder / "0003.png").write_bytes(b"no image")
    assert [each.point.name for each in alternatives_of(run).shown] == [FLOAT8]


def with_nf4_stopped() -> Plan:
    plan = recorded_plan()
    first, *others = plan.pareto
    cut = {"stopped": "it is slower than the best one", "undrawn_images": 3}
    measured = first.measured.model_copy(update=cut)
    return plan.model_copy(
        update={"pareto": (first.model_copy(update={"measured": measured}), *others)}
    )


def test_a_candidate_that_was_stopped_early_shows_what_it_drew(tmp_path: Path) -> None:
    run = write_run(tmp_path, with_nf4_stopped())
    float8, nf4 = alternatives_of(run).shown
    assert sorted(float8.by_index) == [0, 1, 2, 3, 4, 5]
    assert sorted(nf4.by_index) == [0, 1, 2]
    html = write_report(run).read_text(encoding="utf-8")
    assert "loss estimated from its first images" in html
    assert "≈0.12" in html


def test_pairs_that_the_candidate_did_not_draw_are_hidden(visit: Open) -> None:
    page = visit(with_nf4_stopped())
    pick = page.get_by_label("Compare the unquantized images with")
    pick.select_option(index=2)
    assert page.locator(".pair:not([hidden])").count() == 3
    assert page.locator(".pair:visible").count() == 1  # the others wait among the further pairs
    pick.select_option(index=1)
    assert page.locator(".pair:not([hidden])").count() == 6
    page.get_by_label("The quantized images are those of").select_option(index=2)
    assert "1 pair is identical" in page.locator("#blind-test [data-needed]").inner_text()


def test_what_the_page_has_no_room_for_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path)
    monkeypatch.setattr(alternatives, "EMBEDDED_CHARACTERS", 10)
    html = write_report(run).read_text(encoding="utf-8")
    assert f"too large with the images of {FLOAT8}; {NF4} in it" in " ".join(html.split())
    assert "<template" not in html


def test_a_viewer_chooses_the_candidate(visit: Open) -> None:
    page = visit()
    pair = page.locator(".pair[data-pair='4']")
    before = {name: pair.locator(f".{name} img").get_attribute("src") for name in SHOTS}
    pick = page.get_by_label("Compare the unquantized images with")
    assert pick.locator("option").first.inner_text().endswith("chosen")
    pick.select_option(index=2)
    after = {name: pair.locator(f".{name} img").get_attribute("src") for name in SHOTS}
    assert [name for name in SHOTS if before[name] != after[name]] == ["planned", "difference"]
    assert pair.locator(".meta").first.inner_text() == "seed 0 · flip 0.168 · ssim 0.832"
    assert pair.locator(".planned .tag").inner_text() == NF4
    pick.select_option(index=0)
    assert pair.locator(".planned img").get_attribute("src") == before["planned"]
    assert pair.locator(".planned .tag").inner_text() == "as planned"


SHOTS = ("reference", "planned", "difference")


def test_every_candidate_side_by_side(visit: Open) -> None:
    page = visit()
    page.get_by_label("every candidate").check()
    strip = page.locator(".pair[data-pair='4'] .strip figure")
    names = [name.split("\n")[0] for name in strip.all_inner_texts()]
    assert names == ["unquantized", "as planned", FLOAT8, NF4]
    sources = strip.locator("img").evaluate_all("all => all.map(image => image.src)")
    assert len(set(sources)) == 4
    assert strip.locator("img").evaluate_all("all => all.every(image => image.naturalWidth == 96)")
    page.get_by_label("slider").check()
    assert strip.first.is_hidden()


def test_the_blind_test_asks_about_the_candidate_that_is_picked(visit: Open) -> None:
    page = visit()
    blind = page.locator("#blind-test")
    assert "1 pair is identical" in blind.locator("[data-needed]").inner_text()
    page.get_by_label("The quantized images are those of").select_option(index=2)
    blind.get_by_role("button", name="Start").click()
    asked = set()
    while page.locator("[data-step=ask]").is_visible():
        asked.update(
            page.locator("[data-shown]").evaluate_all("all => all.map(image => image.src)")
        )
        page.locator("[data-answer='0']").click()
    page.get_by_label("Compare the unquantized images with").select_option(index=2)
    shown = page.locator(".pair:not([data-pair='0']) .planned img")
    assert asked.issuperset(shown.evaluate_all("all => all.map(image => image.src)"))
    assert len(asked) == 10


def test_only_the_answers_of_the_same_candidate_were_seen_before(visit: Open) -> None:
    page = visit()
    explanation = page.locator("[data-explanation]")
    answer(page, right=5)
    page.get_by_role("button", name="again").click()
    page.get_by_label("The quantized images are those of").select_option(index=1)
    answer(page, right=5)
    assert "You had seen the answers" not in explanation.inner_text()
    page.get_by_role("button", name="again").click()
    answer(page, right=5)
    assert "You had seen the answers" in explanation.inner_text()
