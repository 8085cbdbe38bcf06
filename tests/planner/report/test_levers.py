from __future__ import annotations

from pathlib import Path

from autoquant.planner.candidate import Runtime
from autoquant.planner.candidate_images import other_candidates
from autoquant.planner.plan import ParetoPoint, Plan
from autoquant.planner.report import write_report
from autoquant.planner.report.figures import headline, lead
from autoquant.planner.report.levers import lever_rows, struck_levers, varying_levers
from autoquant.planner.report.points import points_of
from autoquant.search_spaces.levers import LeverConflict, LeverStruck
from tests.planner.report.conftest import Open
from tests.planner.report.recorded_run import choices, measured, recorded_plan, write_run

OFFLOADED = Runtime(offload="model")
COMPILED = Runtime(offload="model", compile="regional")
STRUCK = LeverStruck(lever="vae_tiling", value="true", reason="64 pixels are one tile of 512")
CONFLICT = LeverConflict(
    component="transformer",
    scheme="quanto:int8",
    lever="compile",
    value="regional",
    reason="its kernels break the graph",
)


def a_point(scheme: str, runtime: Runtime, peak_gb: float, **changes: object) -> ParetoPoint:
    figures = measured(scheme).model_copy(update={"peak_gb": peak_gb, "compile_s": 30.0})
    return ParetoPoint(
        components=choices(scheme), runtime=runtime, measured=figures, **{"chosen": False} | changes
    )


def offloaded_plan() -> Plan:
    plan = recorded_plan()
    chosen = plan.candidate.components["transformer"].scheme
    return recorded_plan(
        runtime=COMPILED,
        pareto=(
            *(point.model_copy(update={"chosen": False}) for point in plan.pareto),
            a_point(chosen, COMPILED, 9.0, chosen=True),
            a_point(chosen, OFFLOADED, 8.0),
            a_point("none", OFFLOADED, 25.0),
        ),
        search=plan.search.model_copy(
            update={"levers_struck": (STRUCK,), "conflicts": (CONFLICT,)}
        ),
    )


def test_only_levers_that_are_pulled_somewhere_are_told() -> None:
    assert varying_levers(recorded_plan()) == ()
    assert varying_levers(offloaded_plan()) == ("offload", "compile")
    assert points_of(offloaded_plan())[1].levers == ("model", "none")


def test_a_lever_is_compared_with_all_else_equal() -> None:
    rows = {row.name: row for row in lever_rows(offloaded_plan())}
    assert rows["Offload"].value == "model"
    assert rows["Offload"].alternatives == ()
    assert [other.choice for other in rows["Compile"].alternatives] == ["none"]


def test_what_was_not_pulled_is_said_with_its_reason() -> None:
    groups = {group.reason: group.values for group in struck_levers(offloaded_plan())}
    assert groups == {
        STRUCK.reason: ("VAE tiling on",),
        CONFLICT.reason: ("quanto:int8 with compile regional",),
    }


def test_only_what_everything_is_compared_with_is_called_unquantized() -> None:
    plan = offloaded_plan()
    [unquantized] = [point for point in points_of(plan) if point.is_reference]
    assert unquantized.peak_gb == plan.reference.peak_gb
    others = [candidate.label for _, candidate in other_candidates(plan)]
    assert "bfloat16, nothing quantized · model offload" in others


def test_a_plan_that_pulls_levers_only_is_no_pipeline_as_it_is() -> None:
    plan = offloaded_plan()
    unchanged = {
        name: part.model_copy(update={"scheme": "none"}) for name, part in plan.components.items()
    }
    plan = plan.model_copy(update={"components": unchanged})
    assert "as it is" not in headline(plan)
    assert "Over 6 images" in " ".join(lead(plan))


def test_the_page_has_a_column_for_each_lever(tmp_path: Path, visit: Open) -> None:
    page = visit(offloaded_plan())
    heads = page.locator("#trade-offs thead th").all_inner_texts()
    assert heads[:4] == ["Candidate", "Offload", "Compile", "Peak"]
    row = page.locator("tr.chosen td").all_inner_texts()
    assert row[:3] == ["model", "regional", "9.00 GB"]
    whole = page.locator("#components").inner_text()
    assert "The pipeline as a whole" in whole
    page.get_by_text("1 other choice").click()
    assert "30.00 s to compile once" in page.locator("#components").inner_text()
    assert "VAE tiling on" in page.locator("#not-chosen").inner_text()


def test_without_levers_the_page_says_nothing_of_them(tmp_path: Path) -> None:
    html = write_report(write_run(tmp_path)).read_text(encoding="utf-8")
    assert "The pipeline as a whole" not in html
    assert "Offload" not in html
