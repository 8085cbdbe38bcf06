"""What each option of each axis does to one figure, learned from few measurements.

The figure of a candidate is what its options do, added up; or for losses the p-norm of what each
option does alone. Options that are alike (the same scheme, the same layers left out) are expected
to do alike: a Gaussian prior over the effects, and its posterior given what was measured
(C. E. Rasmussen and C. K. I. Williams, "Gaussian Processes for Machine Learning", 2006, section
2.1; for the p-norm linearised about its own posterior mean, as an iterated extended Kalman filter
does).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoquant.planner.axes import Axis, Indices

Floats = NDArray[np.float64]

_LINEARISATIONS = 6
_SETTLED = 1e-3
# Keeps a matrix that is nearly singular solvable.
_JITTER = 1e-9


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
        self._prior_mean = np.concatenate(list(means))
        self._prior = np.zeros((sum(sizes), sum(sizes)))
        for start, covariance in zip(self._starts, covariances, strict=True):
            end = start + len(covariance)
            self._prior[start:end, start:end] = covariance
        self._active = np.concatenate(list(active))
        self._power = power
        self.mean = self._prior_mean.copy()
        self.covariance = self._prior.copy()
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
        linear = self._power is None
        for _ in range(1 if linear else _LINEARISATIONS):
            before = self.mean
            self._update(indices, values, noise)
            if np.abs(self.mean - before).max() < _SETTLED:
                break

    def _update(self, indices: Indices, values: Floats, noise: Floats) -> None:
        fitted, weights = self._at(indices)
        jacobian = np.zeros((len(values), len(self.mean)))
        np.add.at(jacobian, (np.arange(len(values))[:, None], indices + self._starts), weights)
        residual = values - fitted + jacobian @ (self.mean - self._prior_mean)
        shared = self._prior @ jacobian.T
        total = jacobian @ shared + np.diag(noise**2 + _JITTER)
        factor = np.linalg.cholesky(total)
        solved = np.linalg.solve(total, residual)
        self.mean = self._prior_mean + shared @ solved
        half = np.linalg.solve(factor, shared.T)
        self.covariance = self._prior - half.T @ half
        self.log_evidence = float(
            -0.5 * residual @ solved
            - np.log(np.diag(factor)).sum()
            - 0.5 * len(values) * np.log(2 * np.pi)
        )

    def mixture(self, indices: Indices) -> Floats:
        """How far each row's figure is from that of one option alone: 0, or up to 1/2.

        Damages d1 and d2 make ``|d1 + d2|² = |d1|² + |d2|² + 2 d1·d2``. The effects do not know the
        last term: it moves the logarithm of the loss by the correlation of the damages times
        ``sqrt(w1 w2)``, where w are the shares of the squares.
        """
        _, shares = self._at(indices)
        return np.asarray(np.sqrt(np.maximum(0.0, (1.0 - (shares**2).sum(axis=1)) / 2)))

    def predict(self, indices: Indices) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the figure at each row of ``indices``, (n, axes)."""
        mean, weights = self._at(indices)
        places = indices + self._starts
        variance = np.zeros(len(indices))
        axes = indices.shape[1]
        for one in range(axes):
            for other in range(one, axes):
                shared = self.covariance[places[:, one], places[:, other]]
                times = 1.0 if one == other else 2.0
                variance += times * weights[:, one] * weights[:, other] * shared
        return mean, np.sqrt(np.maximum(variance, 0.0))

    def of_axis(self, axis: int) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the effect of each option of one axis."""
        start = self._starts[axis]
        end = self._starts[axis + 1] if axis + 1 < len(self._starts) else len(self.mean)
        variance = np.diag(self.covariance)[start:end]
        return self.mean[start:end], np.sqrt(np.maximum(variance, 0.0))

    def _at(self, indices: Indices) -> tuple[Floats, Floats]:
        """The figure at the present means, and its derivative by each axis' effect."""
        places = indices + self._starts
        effects = self.mean[places]
        active = self._active[places]
        if self._power is None:
            return np.where(active, effects, 0.0).sum(axis=1), active.astype(np.float64)
        scaled = np.where(active, self._power * effects, -np.inf)
        highest = scaled.max(axis=1, keepdims=True)
        highest = np.where(np.isfinite(highest), highest, 0.0)
        shares = np.exp(scaled - highest)
        total = shares.sum(axis=1, keepdims=True)
        with np.errstate(divide="ignore"):
            value = (np.log(total) + highest)[:, 0] / self._power
        return value, shares / np.where(total > 0, total, 1.0)


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
