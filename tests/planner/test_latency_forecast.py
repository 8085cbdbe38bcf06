from __future__ import annotations

import numpy as np
import pytest

from autoquant.planner.axes import axes_of, positions_of
from autoquant.planner.candidate import Runtime
from autoquant.planner.latency_forecast import LatencyPredictor
from autoquant.planner.priors import Priors
from autoquant.search_spaces.space import ComponentSpace, SearchSpace
from tests.planner.measurements import measured

SCHEMES = ("none", *(f"fake{place}:int8" for place in range(1, 9)))
SPACE = SearchSpace(components={"transformer": ComponentSpace(schemes=SCHEMES)})
PRIORS = Priors(axes_of(SPACE, Runtime()))


def predictor(*seconds: float) -> LatencyPredictor:
    """Of the unquantized pipeline, and as many schemes as there are further figures."""
    known = [measured(latency_s=figure) for figure in seconds]
    rows = np.array([[place, 0] for place in range(len(known))])
    return LatencyPredictor(PRIORS, known[0], rows, known)


def test_the_reference_is_predicted_as_it_was_measured() -> None:
    mean, sd = predictor(2.0).predict(positions_of(np.array([[0, 0]])))
    assert mean == pytest.approx([2.0])
    assert 0 < sd[0] < 0.5


def test_a_slow_call_scatters_by_more_seconds_than_a_fast_one() -> None:
    known = predictor(1.0, 0.5, 8.0)
    _, sd = known.predict(positions_of(np.array([[1, 0], [2, 0]])))
    assert sd[1] > 2 * sd[0]


def test_a_few_figures_that_agree_do_not_rule_out_that_calls_scatter() -> None:
    mean, sd = predictor(1.0, 1.0).predict(positions_of(np.array([[1, 0]])))
    assert mean == pytest.approx([1.0], rel=0.01)
    assert sd[0] > 0.02  # the least scatter alone would be 0.01
