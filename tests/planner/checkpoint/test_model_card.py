from __future__ import annotations

from autoquant.planner.candidate import Runtime
from autoquant.planner.checkpoint.model_card import model_card
from tests.planner.report.recorded_run import CHOSEN, measured, recorded_plan, scored


def test_the_card_says_what_was_done_and_how_to_load_it() -> None:
    card = model_card(recorded_plan(), "owner/model", {"license": "other"})
    assert "base_model: owner/model" in card
    assert f"| transformer | {CHOSEN} | 190 |" in card
    assert "pip install diffusers transformers accelerate torchao" in card
    assert "- torch 2.9.0" in card
    assert "no checkpoint holds" not in card


def test_one_image_has_no_interval() -> None:
    one = scored([0.02]).model_copy(update={"low": None, "high": None})
    figures = measured(CHOSEN, 1).model_copy(update={"fidelity": {"flip": one}})
    card = model_card(recorded_plan(prompts=("a cat",), measured=figures), None, {})
    assert "| flip, mean (95 % interval) | 0.02 | |" in card


def test_levers_are_named_as_what_a_checkpoint_does_not_hold() -> None:
    card = model_card(recorded_plan(runtime=Runtime(offload="model")), None, {})
    assert "measured with model offload, which no checkpoint holds" in card
