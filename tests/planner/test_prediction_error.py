from __future__ import annotations

import pytest

from autoquant.planner.measurement import Prediction, Trial
from autoquant.planner.prediction_error import prediction_error
from tests.planner.measurements import candidate, measured


def predicted(loss: float, peak_gb: float, latency_s: float) -> Trial:
    """A trial that measured a loss of 0.1, 2 GiB and 4 s."""
    return Trial(
        number=0,
        candidate=candidate(),
        measured=measured(loss=0.1, peak_gb=2.0, latency_s=4.0),
        predicted=Prediction(
            loss=loss,
            log_loss_sd=0.1,
            peak_gb=peak_gb,
            peak_gb_sd=0.1,
            latency_s=latency_s,
            latency_s_sd=0.1,
        ),
    )


def test_the_median_and_the_worst_of_the_differences() -> None:
    trials = [predicted(0.1, 2.0, 4.0), predicted(0.12, 2.2, 3.0), predicted(0.0, 1.0, 8.0)]
    error = prediction_error(trials)
    assert error is not None
    assert error.checked == 3
    assert (error.loss_median, error.loss_worst) == pytest.approx((0.02, 0.1))
    assert (error.peak_median, error.peak_worst) == pytest.approx((0.1, 0.5))
    assert (error.latency_median, error.latency_worst) == pytest.approx((0.25, 1.0))


def test_without_predictions_there_is_no_error() -> None:
    trial = Trial(number=0, candidate=candidate(), measured=measured())
    assert prediction_error([trial]) is None


def test_the_share_of_compiling_that_was_predicted_is_added_to_what_was_measured() -> None:
    trial = predicted(0.1, 2.0, 5.0)
    assert trial.measured is not None
    compiled = trial.measured.model_copy(update={"compile_s": 10.0})
    trial = trial.model_copy(update={"measured": compiled})
    error = prediction_error([trial], calls_per_session=10)
    assert error is not None
    assert error.latency_worst == 0
