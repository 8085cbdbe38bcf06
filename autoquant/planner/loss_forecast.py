"""Predict losses, with the noise floor still in them, from what the options do alone.

They combine as a p-norm whose p is fitted: 1 where damages add, 2 where they are independent, more
where the worst one decides. ``effects`` says how the options' effects are learned.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoquant.planner.axes import Axis, Indices, Positions, positions_of
from autoquant.planner.effects import Effects, Floats
from autoquant.planner.measurement import Estimate, Measured, image_losses
from autoquant.planner.priors import Priors

# A loss below this is none.
NO_LOSS = 1e-6

_POWERS = (1.0, 1.5, 2.0, 3.0, 5.0)
# Effects do not explain this much of a loss (its logarithm).
_LOSS_NOISE = 0.005
# Spread of one image's loss, against how hard that image is. Over all candidates of the recorded
# table it is twice that, but candidates that are alike are off alike.
_IMAGE_NOISE = 0.1
# Correlation between the damages of two options: its standard deviation.
_CORRELATION = 0.1
# Of the logarithm of a loss that stands for none: it says no more than that it is small.
_SPREAD_OF_NONE = 0.5
_FITS = 2


class LossPredictor:
    """What was measured so far says of the loss of every candidate.

    Args:
        priors: The space, and what is expected of its options.
        noise_floor: What the unquantized pipeline loses against itself.
        indices: Where the measured candidates stand, shape (n, axes).
        measured: Their measurements.
        estimates: What cheaper measurements say of choices alone.
    """

    def __init__(
        self,
        priors: Priors,
        noise_floor: float,
        indices: Indices,
        measured: Sequence[Measured],
        estimates: Sequence[Estimate],
    ) -> None:
        self._axes = priors.axes
        # A loss so small that its logarithm stands for none.
        self._least = max(0.05 * noise_floor, NO_LOSS)
        damaged = np.array([self._is_damaged(row) for row in indices], dtype=bool)
        known = [m for m, is_damaged in zip(measured, damaged, strict=True) if is_damaged]
        alone = [estimate for estimate in estimates if estimate.loss > 0]
        raw = np.array(
            [*map(raw_loss, known), *(estimate.loss + noise_floor for estimate in alone)]
        )
        values = np.log(np.maximum(raw, self._least))
        rows = np.vstack([indices[damaged], *(_row_of(estimate, self._axes) for estimate in alone)])
        undrawn = [undrawn_noise(measurement) for measurement in known]
        alone_sd = [estimate.log_loss_sd for estimate in alone]
        fits = [priors.losses(power) for power in _POWERS]
        for effects in fits:
            for _ in range(_FITS):
                noise = np.where(
                    raw > self._least,
                    self._unexplained(effects, positions_of(rows)),
                    _SPREAD_OF_NONE,
                )
                noise[: len(known)] = np.hypot(noise[: len(known)], undrawn)
                noise[len(known) :] = alone_sd
                effects.fit(rows, values, noise)
        self._effects = max(fits, key=lambda fit: (fit.log_evidence, fit.power == 2.0))

    def predict(self, positions: Positions) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the loss' logarithm of the candidates at ``positions``."""
        mean, sd = self._effects.predict(positions)
        sd = np.hypot(sd, self._unexplained(self._effects, positions))
        return np.maximum(mean, np.log(self._least)), sd

    def least_of_axis(self, axis: int) -> Floats:
        """The logarithm of what each option of one axis loses alone, at its best."""
        mean, sd = self._effects.of_axis(axis)
        return np.where(self._axes[axis].damages, mean - sd, -np.inf)

    def _is_damaged(self, row: Indices) -> bool:
        return any(axis.damages[place] for axis, place in zip(self._axes, row, strict=True))

    @staticmethod
    def _unexplained(effects: Effects, positions: Positions) -> Floats:
        return np.hypot(_LOSS_NOISE, _CORRELATION * effects.mixture(positions))


def raw_loss(measured: Measured) -> float:
    """The mean loss of all images before the noise floor was taken off."""
    losses = image_losses(measured)
    return measured.loss_scale * sum(losses) / len(losses)


def undrawn_noise(measured: Measured) -> float:
    """How far the logarithm of the loss may be off because not every image was drawn.

    The standard error of a mean of n of N, with the correction for a finite population.
    """
    drawn = len(image_losses(measured))
    of_all = drawn + measured.undrawn_images
    return float(_IMAGE_NOISE * np.sqrt(1 / drawn - 1 / of_all))


def _row_of(estimate: Estimate, axes: Sequence[Axis]) -> Indices:
    row = np.zeros(len(axes), dtype=np.int64)
    for place, axis in enumerate(axes):
        if axis.name == estimate.component:
            row[place] = axis.position[estimate.choice]
    return row
