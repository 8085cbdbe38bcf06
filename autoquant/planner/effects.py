"""What each option of each axis does to one figure, learned from few measurements.

The figure of a candidate is what its options do, added up; or for losses the p-norm of what each
option does alone. Options that are alike (the same scheme, the same layers left out) are expected
to do alike: a Gaussian prior over the effects, and its posterior given what was measured
(C. E. Rasmussen and C. K. I. Williams, "Gaussian Processes for Machine Learning", 2006, section
2.1; for the p-norm linearised about its own posterior mean, as an iterated extended Kalman filter
does).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dposv, dtrtrs

from autoquant.planner.axes import Axis, Indices, Positions

Floats = NDArray[np.float64]

_LINEARISATIONS = 6
_SETTLED = 1e-3
# Keeps a matrix that is nearly singular solvable.
_JITTER = 1e-9
# Squares of what is smaller than this share of the highest would vanish. With p = 5 these are
# losses of less than 1e-26 of the highest.
_LEAST_EXPONENT = -300.0


@dataclass(frozen=True)
class Spread:
    """How far effects lie apart before anything is measured, as standard deviations.

    Attributes:
        alike: For each kind of likeness, how much the options that share a label share.
        own: What an option has to itself.
        level: What all options of an axis share.
        slope: What a bit of a weight's width changes.
    """

    alike: Mapping[str, float]
    own: float
    level: float = 0.0
    slope: float = 0.0


def prior_covariance(axis: Axis, spread: Spread, active: NDArray[np.bool_]) -> Floats:
    """Covariance of the effects of an axis' options; options that are not ``active`` have none."""
    n = len(axis.options)
    bits = axis.bits - 8.0
    covariance = spread.level**2 + spread.slope**2 * np.outer(bits, bits)
    covariance = covariance + spread.own**2 * np.eye(n)
    for kind, labels in axis.labels.items():
        scale = spread.alike.get(kind, 0.0)
        # What shares the label of the option that changes nothing is not changed by this.
        codes = np.array([-1 if label == labels[0] else labels.index(label) for label in labels])
        same = (codes[:, None] == codes[None, :]) & (codes >= 0)[:, None]
        covariance = covariance + scale**2 * same
    covariance[~active, :] = 0.0
    covariance[:, ~active] = 0.0
    return np.asarray(covariance, dtype=np.float64)


class Effects:
    """The posterior of every option's effect on one figure.

    Attributes:
        mean: Of each option of each axis, one axis after the other.
        covariance: Of all of them.
        log_evidence: How likely what was measured is under the prior.

    Args:
        means: For each axis the prior mean of each option's effect.
        covariances: For each axis the prior covariance of its options' effects.
        power: ``None`` where effects add up. Otherwise effects are logarithms of losses that
            combine as a p-norm with this p, over the options that are ``active``.
        active: For each axis, which options have an effect at all.
    """

    def __init__(
        self,
        means: Sequence[Floats],
        covariances: Sequence[Floats],
        active: Sequence[NDArray[np.bool_]],
        power: float | None = None,
    ) -> None:
        sizes = [len(mean) for mean in means]
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        self._active = np.concatenate(list(active))
        self._prior_mean = np.where(self._active, np.concatenate(list(means)), 0.0)
        self._prior = np.zeros((sum(sizes), sum(sizes)))
        for start, covariance in zip(self._starts, covariances, strict=True):
            end = start + len(covariance)
            self._prior[start:end, start:end] = covariance
        self.power = power
        self.mean = self._prior_mean
        self.covariance = self._prior
        self.log_evidence = 0.0

    def fit(self, indices: Indices, values: Floats, noise: Floats) -> None:
        """Learn from measured figures.

        Args:
            indices: Shape (n, axes): where each measured candidate stands.
            values: Shape (n,): its figure, for losses its logarithm.
            noise: Shape (n,): standard deviation of what the effects do not explain.
        """
        if len(values) == 0:
            return
        places = (indices + self._starts).T
        prior_mean, active = self._prior_mean[places], self._active[places]
        # Only what was measured is needed until the weights have settled.
        likeness = self._prior[places[:, :, None], places[:, None, :]]
        unexplained = np.diag(noise**2 + _JITTER)
        mean = self.mean[places]
        steps = 1 if self.power is None else _LINEARISATIONS
        for step in range(1, steps + 1):
            fitted, weights = self._combined(mean, active)
            residual = values - fitted + (weights * (mean - prior_mean)).sum(axis=0)
            total = (weights[:, :, None] * likeness * weights[:, None, :]).sum(axis=0)
            # LAPACK itself: what scipy.linalg does around it takes longer than a few dozen rows do.
            factor, solved, failed = dposv(total + unexplained, residual, lower=True)
            if failed:
                raise np.linalg.LinAlgError(f"dposv returned {failed} for {len(values)} figures")
            before = mean
            mean = prior_mean + (likeness @ (weights * solved)[:, :, None])[:, :, 0]
            if step == steps or np.abs(mean - before).max() < _SETTLED:
                self._update(places, weights, solved, factor)
                self.log_evidence = float(
                    -0.5 * residual @ solved
                    - np.log(np.diag(factor)).sum()
                    - 0.5 * len(values) * np.log(2 * np.pi)
                )
                break

    def _update(self, places: Indices, weights: Floats, solved: Floats, factor: Floats) -> None:
        """Take over what was learned of the measured options, to all that are like them."""
        shared = (self._prior[places] * weights[:, :, None]).sum(axis=0)
        self.mean = self._prior_mean + solved @ shared
        half, _ = dtrtrs(factor, shared, lower=True)
        self.covariance = self._prior - half.T @ half

    def mixture(self, positions: Positions) -> Floats:
        """How far each candidate's figure is from that of one option alone: 0, or up to 1/2.

        Damages d1 and d2 make ``|d1 + d2|² = |d1|² + |d2|² + 2 d1·d2``. The effects do not know the
        last term: it moves the logarithm of the loss by the correlation of the damages times
        ``sqrt(w1 w2)``, where w are the shares of the squares.
        """
        damages, _ = self._damages(positions)
        squares = _summed(damage**2 for damage in damages)
        whole = _summed(damages) ** 2
        shares = squares / np.where(whole > 0, whole, 1.0)
        return np.asarray(np.sqrt(np.maximum(0.0, (1.0 - shares) / 2)))

    def predict(self, positions: Positions) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the figure of the candidates at ``positions``."""
        if self.power is None:
            total = _summed(self.mean[place] for place in self._places(positions))
            return total, np.sqrt(np.maximum(self._variances(positions), 0.0))
        damages, highest = self._damages(positions)
        total = _summed(damages)
        with np.errstate(divide="ignore"):
            mean = (np.log(total) + highest) / self.power
        variance = self._variances(positions, damages) / np.where(total > 0, total, 1.0) ** 2
        return mean, np.sqrt(np.maximum(variance, 0.0))

    def of_axis(self, axis: int) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the effect of each option of one axis."""
        start = self._starts[axis]
        end = self._starts[axis + 1] if axis + 1 < len(self._starts) else len(self.mean)
        variance = np.diag(self.covariance)[start:end]
        return self.mean[start:end], np.sqrt(np.maximum(variance, 0.0))

    def _combined(self, effects: Floats, active: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """The figures that effects of shape (axes, n) make, and their derivatives by each."""
        if self.power is None:
            return effects.sum(axis=0), active.astype(np.float64)
        damages, highest = _damages(effects, active, self.power)
        total = _summed(damages)
        return (np.log(total) + highest) / self.power, np.stack(damages) / total

    def _damages(self, positions: Positions) -> tuple[list[Floats], float]:
        places = self._places(positions)
        assert self.power is not None
        effects = [self.mean[place] for place in places]
        return _damages(effects, [self._active[place] for place in places], self.power)

    def _variances(self, positions: Positions, weights: Sequence[Floats] | None = None) -> Floats:
        """Of sums of effects: those of pairs of axes first, as they are far fewer."""
        places = self._places(positions)
        variance: Floats = np.zeros(())
        for last, place in enumerate(places):
            for first in range(last + 1):
                pair = self.covariance[places[first], place]
                if weights is not None:
                    pair = weights[first] * weights[last] * pair
                variance = variance + (pair if first == last else 2.0 * pair)
        return variance

    def _places(self, positions: Positions) -> list[Indices]:
        return [start + at for start, at in zip(self._starts, positions, strict=True)]


def _damages(
    effects: Iterable[Floats], active: Iterable[NDArray[np.bool_]], power: float
) -> tuple[list[Floats], float]:
    """Logarithmic losses to the power, as shares of the highest, whose logarithm comes with them.

    What is not ``active`` does no damage.
    """
    pairs = [(power * effect, on) for effect, on in zip(effects, active, strict=True)]
    highest = max(float(np.max(scaled, where=on, initial=-np.inf)) for scaled, on in pairs)
    highest = highest if np.isfinite(highest) else 0.0
    return [
        np.where(on, np.exp(np.maximum(scaled - highest, _LEAST_EXPONENT)), 0.0)
        for scaled, on in pairs
    ], highest


def _summed(parts: Iterable[Floats]) -> Floats:
    return reduce(np.add, parts)


def averaged(posteriors: Sequence[Effects], weights: Floats) -> Effects:
    """What several posteriors of effects that add up say together: their mixture's moments.

    Args:
        posteriors: Over the same axes, learned under different assumptions.
        weights: How likely each assumption is; they sum to 1.
    """
    mixed = copy(posteriors[0])
    means = np.stack([posterior.mean for posterior in posteriors])
    mixed.mean = weights @ means
    off = means - mixed.mean
    within = np.tensordot(weights, np.stack([p.covariance for p in posteriors]), axes=1)
    mixed.covariance = within + (weights[:, None] * off).T @ off
    return mixed
