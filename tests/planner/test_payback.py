"""When compiling is worth its time."""

from autoquant.planner.payback import compile_payback
from tests.planner.measurements import measured


def test_compiling_is_paid_back_after_as_many_calls_as_its_time_holds_savings() -> None:
    compiled = measured(latency_s=3.0).model_copy(update={"compile_s": 61.0})
    payback = compile_payback(compiled, measured(latency_s=5.0), batch_size=1)
    assert payback.images == 31
    assert compile_payback(compiled, measured(latency_s=5.0), batch_size=4).images == 124


def test_what_saves_nothing_is_never_paid_back() -> None:
    compiled = measured(latency_s=5.0).model_copy(update={"compile_s": 61.0})
    assert compile_payback(compiled, measured(latency_s=5.0), batch_size=1).images is None


def test_the_sentence_says_what_it_costs_and_when_it_pays() -> None:
    compiled = measured(latency_s=3.0).model_copy(update={"compile_s": 61.0})
    payback = compile_payback(compiled, measured(latency_s=5.0), batch_size=1)
    assert payback.sentence == (
        "Compiling takes 1 min 1 s once and is paid back after 31 images: 5.00 s a call without "
        "it, 3.00 s with it."
    )
