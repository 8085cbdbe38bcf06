from __future__ import annotations

import pytest

from autoquant.planner.budget import Budget
from autoquant.planner.confirmation import Confirmation, LossSummary
from autoquant.planner.plan import PlannedComponent
from autoquant.planner.report.choices import component_rows, failure_groups, struck_groups
from autoquant.planner.report.figures import change, figures_of, headline, lead
from autoquant.planner.report.points import points_of
from autoquant.planner.report.scores import score_table, worst_first
from tests.planner.report.recorded_run import measured, recorded_plan


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {},
            "FluxPipeline stays within 16.00 GB of memory and 4.50 s a call: 14.00 GB at the peak",
        ),
        ({"budget": Budget()}, "FluxPipeline runs with 14.00 GB at the peak instead of 31.00 GB"),
        ({"budget": Budget.of(vram_gb=13)}, "does not stay within 13.00 GB of memory: it misses"),
        (
            {
                "components": {"transformer": PlannedComponent()},
                "measured": measured("none"),
                "budget": Budget.of(vram_gb=40),
            },
            "stays within 40.00 GB of memory as it is: nothing needs to be quantized",
        ),
    ],
)
def test_the_headline_is_the_verdict(changes: dict[str, object], sentence: str) -> None:
    assert sentence in headline(recorded_plan(**changes))


@pytest.mark.parametrize(("reasons", "word"), [((), "holds up"), (("worse",), "does not hold up")])
def test_unseen_prompts_have_a_figure_of_their_own(reasons: tuple[str, ...], word: str) -> None:
    confirmation = Confirmation(
        prompts=("a boat", "a tree"),
        seeds=(1,),
        metric="flip",
        searched=LossSummary(mean=0.02, low=0.01, high=0.03, worst=0.04),
        found=LossSummary(mean=0.025, low=0.015, high=0.035, worst=0.05),
        reasons=reasons,
    )
    [figure] = [
        figure
        for figure in figures_of(recorded_plan(confirmation=confirmation))
        if figure.name == "Loss on unseen prompts"
    ]
    assert figure.value == "0.025"
    assert figure.notes == ("0.015 to 0.035, 95% interval", "worst 0.05", word)


def test_the_lead_sets_the_loss_beside_the_noise_floor() -> None:
    text = " ".join(lead(recorded_plan()))
    assert "Over 6 images its flip loss against the unquantized pipeline is 0.02" in text
    assert "0.003" in text


@pytest.mark.parametrize(
    ("value", "reference", "words"),
    [
        (6, 10, "40% less"),
        (12, 10, "20% more"),
        (10, 10.01, "no different"),
        (1, 0, "no different"),
    ],
)
def test_a_change_in_words(value: float, reference: float, words: str) -> None:
    assert change(value, reference) == words


def test_a_bar_shows_value_reference_and_limit_as_shares_of_the_widest() -> None:
    gauge = figures_of(recorded_plan())[0].gauge
    assert gauge is not None
    assert gauge.reference == 1.0
    assert gauge.value == pytest.approx(14 / 31)
    assert gauge.limit == pytest.approx(16 / 31)


def test_a_limit_far_away_is_not_drawn_into_the_bar() -> None:
    gauge = figures_of(recorded_plan(budget=Budget.of(vram_gb=1000)))[0].gauge
    assert gauge is not None
    assert gauge.limit is None


def test_a_miss_is_named_with_its_size_even_if_it_is_tiny() -> None:
    status = {point.name: point.status for point in points_of(recorded_plan())}
    assert status["transformer torchao:float8wo"] == "misses memory by 1.00 GB"
    barely = points_of(recorded_plan(budget=Budget.of(vram_gb=16.99999)))
    assert any(point.status == "misses memory by 0.01 MB" for point in barely)
    hardly = points_of(recorded_plan(budget=Budget.of(vram_gb=16.9999999)))
    assert any(point.status == "misses memory by a hair" for point in hardly)


def test_each_component_has_its_choice_its_saving_and_its_reason() -> None:
    rows = {row.name: row for row in component_rows(recorded_plan())}
    assert list(rows) == ["transformer", "text_encoder", "vae"]
    assert rows["transformer"].saved == "17.00 GB (63%)"
    assert rows["transformer"].layers == 190
    assert rows["text_encoder"].saved == "nothing"
    assert (rows["vae"].choice, rows["vae"].why) == ("left alone", "mostly convolutions")


def test_other_choices_for_a_component_are_those_that_differ_in_it_alone() -> None:
    rows = {row.name: row for row in component_rows(recorded_plan())}
    assert [other.choice for other in rows["transformer"].alternatives] == [
        "bitsandbytes:nf4",
        "torchao:float8wo",
        "unquantized",
    ]
    assert rows["text_encoder"].alternatives == ()
    assert rows["vae"].alternatives == ()


def test_savings_are_left_out_where_the_unquantized_sizes_are_not_known() -> None:
    rows = component_rows(recorded_plan(pareto=()))
    assert all(row.before == "" and row.saved == "" for row in rows)


def test_failures_and_struck_schemes_are_grouped_by_reason() -> None:
    plan = recorded_plan()
    assert [(group.reason, group.candidates) for group in failure_groups(plan)] == [
        ("no such kernel", ("transformer quanto:int4",))
    ]
    assert [(group.reason, group.schemes) for group in struck_groups(plan)] == [
        ("gguf is missing", ("gguf:Q4_K",))
    ]


def test_the_deciding_metric_comes_first_and_says_which_way_is_better() -> None:
    table = score_table(recorded_plan())
    assert [(metric.name, metric.better) for metric in table.metrics] == [
        ("flip", "lower is better"),
        ("ssim", "higher is better"),
    ]
    assert table.caption(0) == "seed 0 · flip 0.02 · ssim 0.98"


def test_images_are_shown_worst_first_and_in_order_where_scores_do_not_fit() -> None:
    assert worst_first(recorded_plan()) == (5, 4, 3, 2, 1, 0)
    assert worst_first(recorded_plan(measured=measured("none", n_images=2))) == (0, 1, 2, 3, 4, 5)
