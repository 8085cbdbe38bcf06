from __future__ import annotations

import numpy as np
import pytest

from autoquant.planner.axes import Axis, positions_of
from autoquant.planner.effects import Effects, Spread, averaged, prior_covariance
from autoquant.search_spaces.scheme import Choice

AXIS = Axis(
    "transformer",
    (
        Choice(),
        Choice(scheme="one:int8"),
        Choice(scheme="one:int8", exclusions=("proj_out",)),
        Choice(scheme="two:int4"),
    ),
)
ALL = np.array([False, True, True, True])
SPREAD = Spread({"scheme": 1.0, "exclusions": 0.5}, own=0.1)


def effects(power: float | None = None, axes: int = 1) -> Effects:
    covariance = prior_covariance(AXIS, SPREAD, ALL)
    return Effects([np.zeros(4)] * axes, [covariance] * axes, [ALL] * axes, power)


def test_options_that_are_alike_are_expected_to_do_alike() -> None:
    covariance = prior_covariance(AXIS, SPREAD, ALL)
    assert covariance[1, 2] == pytest.approx(1.0)  # the scheme
    assert covariance[1, 3] == 0.0
    assert covariance[0].tolist() == [0, 0, 0, 0]
    assert covariance[2, 2] == pytest.approx(1.0 + 0.25 + 0.01)


def test_a_measured_option_tells_of_its_kin_and_not_of_others() -> None:
    learned = effects()
    learned.fit(np.array([[1]]), np.array([2.0]), np.array([0.01]))
    mean, sd = learned.predict(positions_of(np.array([[0], [1], [2], [3]])))
    assert mean == pytest.approx([0.0, 2.0, 2.0, 0.0], abs=0.05)
    assert sd[0] == 0
    assert sd[1] < 0.02 < sd[2] < sd[3]


def test_effects_of_several_axes_add_up() -> None:
    learned = effects(axes=2)
    rows = np.array([[1, 0], [0, 3], [1, 3]])
    learned.fit(rows[:2], np.array([1.0, 0.5]), np.array([0.01, 0.01]))
    assert learned.predict(positions_of(rows))[0] == pytest.approx([1.0, 0.5, 1.5], abs=0.02)


@pytest.mark.parametrize(("power", "whole"), [(1.0, 0.07), (2.0, 0.05)])
def test_losses_combine_as_a_norm(power: float, whole: float) -> None:
    learned = effects(power, axes=2)
    rows = np.array([[1, 0], [0, 1], [1, 1]])
    learned.fit(rows[:2], np.log([0.03, 0.04]), np.array([1e-3, 1e-3]))
    assert np.exp(learned.predict(positions_of(rows))[0]) == pytest.approx(
        [0.03, 0.04, whole], rel=0.01
    )


def test_a_whole_tells_of_its_parts() -> None:
    learned = effects(2.0, axes=2)
    rows = np.array([[1, 0], [1, 1]])
    learned.fit(rows, np.log([0.03, 0.05]), np.array([1e-3, 1e-3]))
    assert np.exp(learned.predict(positions_of(np.array([[0, 1]])))[0]) == pytest.approx(
        [0.04], rel=0.02
    )


def test_where_one_option_decides_nothing_is_mixed() -> None:
    learned = effects(2.0, axes=2)
    rows = np.array([[1, 0], [1, 1]])
    learned.fit(np.array([[1, 0], [0, 1]]), np.log([0.03, 0.03]), np.array([1e-3, 1e-3]))
    assert learned.mixture(positions_of(rows)) == pytest.approx([0.0, 0.5], abs=1e-3)


@pytest.mark.parametrize("power", [None, 1.0, 2.0, 5.0])
def test_a_mesh_of_options_is_predicted_as_its_candidates_are(power: float | None) -> None:
    learned = effects(power, axes=3)
    rows = np.array([[1, 0, 0], [0, 2, 3], [1, 3, 2], [3, 3, 3]])
    learned.fit(rows, np.log([0.03, 1e-5, 0.2, 0.5]), np.full(4, 0.01))
    options = [np.array([0, 2, 3]), np.array([3, 1]), np.arange(4)]
    each = [at.ravel() for at in np.meshgrid(*options, indexing="ij")]
    mesh = np.ix_(*options)
    figures = [*zip(learned.predict(mesh), learned.predict(each), strict=True)]
    if power is not None:
        figures.append((learned.mixture(mesh), learned.mixture(each)))
    for of_mesh, of_each in figures:
        assert of_mesh.shape == (3, 2, 4)
        assert of_mesh.ravel() == pytest.approx(of_each, rel=1e-9)


def test_losses_far_apart_are_told_apart() -> None:
    learned = effects(5.0, axes=2)
    rows = np.array([[1, 0], [0, 3]])
    # Squared, the smaller to the fifth power is below the least float.
    learned.fit(rows, np.array([0.0, -59.0]), np.full(2, 1e-3))
    mean, sd = learned.predict(positions_of(rows))
    assert mean == pytest.approx([0.0, -59.0], abs=0.1)
    assert (sd > 0).all()


def test_without_measurements_the_prior_stays() -> None:
    learned = effects()
    learned.fit(np.zeros((0, 1), dtype=np.int64), np.zeros(0), np.zeros(0))
    assert learned.predict(positions_of(np.array([[3]])))[0] == 0


def test_averaged_posteriors_have_the_moments_of_their_mixture() -> None:
    one, other = effects(), effects()
    one.fit(np.array([[1]]), np.array([2.0]), np.array([0.1]))
    other.fit(np.array([[1]]), np.array([3.0]), np.array([0.5]))
    weights = np.array([0.25, 0.75])
    row = np.array([[1]])
    (first,), (first_sd,) = one.predict(positions_of(row))
    (second,), (second_sd,) = other.predict(positions_of(row))
    (mean,), (sd,) = averaged([one, other], weights).predict(positions_of(row))
    assert mean == pytest.approx(0.25 * first + 0.75 * second)
    square = 0.25 * (first**2 + first_sd**2) + 0.75 * (second**2 + second_sd**2)
    assert sd**2 == pytest.approx(square - mean**2)
