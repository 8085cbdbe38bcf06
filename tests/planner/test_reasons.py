"""Why a plan is as it is, in one line."""

from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Runtime
from autoquant.planner.reasons import runtime_reason
from tests.planner.measurements import candidate, trial

QUANTIZED = candidate("torchao:int8wo")
OFFLOADED = QUANTIZED.model_copy(update={"runtime": Runtime(offload="model")})


def test_a_lever_is_explained_by_the_trial_without_it() -> None:
    chosen = trial(1, OFFLOADED, peak_gb=2.0)
    other = trial(0, QUANTIZED, peak_gb=5.0, latency_s=3.0, loss=0.01)
    why = runtime_reason(chosen, [other, chosen], Budget(vram_gb=4))
    assert why == "without offload: peak 5.00 GB, 3.00 s a call, loss 0.01 (misses the budget)"


def test_a_lever_that_was_not_compared_says_so() -> None:
    chosen = trial(1, OFFLOADED, peak_gb=2.0)
    assert runtime_reason(chosen, [chosen], Budget()) == "offload: not measured without it"


def test_a_runtime_without_levers_needs_no_reason() -> None:
    chosen = trial(1, QUANTIZED)
    assert runtime_reason(chosen, [chosen], Budget()) == ""
