from __future__ import annotations

from pathlib import Path

from autoquant.planner.plan import Plan, PlannedComponent
from autoquant.planner.report import write_report
from autoquant.planner.report.layers import layer_charts
from autoquant.planner.sensitivity import GroupLoss, Sensitivity
from tests.planner.report.conftest import Open
from tests.planner.report.driving import PHONE
from tests.planner.report.recorded_run import CHOSEN, recorded_plan, write_run

NORMS = ("blocks.0.norm.linear", "blocks.1.norm.linear")


def looked_into(scheme: str) -> Sensitivity:
    return Sensitivity(
        component="transformer",
        scheme=scheme,
        prompts=2,
        steps=4,
        metric="flip",
        component_gb=27.0,
        groups=(
            GroupLoss(group="head", layers=("proj_out",), weights=10, failure="NaN"),
            GroupLoss(group="modulation", layers=NORMS, weights=99, saved_gb=0.5, loss=0.02),
            GroupLoss(group="attention", layers=("a", "b"), weights=999, saved_gb=9.0, loss=0.01),
        ),
    )


def plan_with_layers() -> Plan:
    part = PlannedComponent(scheme=CHOSEN, exclusions=NORMS)
    return recorded_plan(
        components={"transformer": part, "text_encoder": PlannedComponent()},
        sensitivity=(looked_into("quanto:int2"), looked_into(CHOSEN)),
    )


def test_bars_are_shares_of_the_largest_loss_and_what_is_kept_is_marked() -> None:
    chosen, other = layer_charts(plan_with_layers())
    assert (chosen.scheme, chosen.is_chosen, other.is_chosen) == (CHOSEN, True, False)
    assert [row.share for row in chosen.rows] == [1.0, 1.0, 0.5]
    assert [row.kept for row in chosen.rows] == [False, True, False]
    assert not any(row.kept for row in other.rows)
    assert (chosen.rows[0].loss, chosen.rows[0].failure) == ("fails", "NaN")


def test_the_page_draws_them(visit: Open) -> None:
    for options in ({}, PHONE):
        page = visit(plan_with_layers(), **options)
        section = page.locator("#layers")
        text = section.inner_text()
        assert "modulation" in text
        assert "2 layers, kept unquantized" in text
        assert "quanto:int2 (not chosen)" in text
        bars = section.locator("rect").evaluate_all("all => all.map(b => b.getBBox().width)")
        assert bars == [100, 100, 50] * 2
        width = page.viewport_size["width"]
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_plan_without_such_a_look_has_no_such_section(tmp_path: Path) -> None:
    assert 'id="layers"' not in write_report(write_run(tmp_path)).read_text(encoding="utf-8")
