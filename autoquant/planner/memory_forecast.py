"""Predict the memory of a call: what each component holds, and the activations beside that.

What options add to the activations is learned, as ``effects`` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from autoquant.planner.axes import Indices, Positions, positions_of
from autoquant.planner.effects import Floats
from autoquant.planner.measurement import Estimate, Measured
from autoquant.planner.priors import Priors

# Effects do not explain this much of the activations.
_ACTIVATION_NOISE = 0.01
# Of the reference's peak; where less was counted, it was counted beside something else.
_LEAST_ACTIVATIONS = 0.01
# Bytes are counted; this keeps a matrix from being singular.
_WEIGHTS_NOISE = 1e-5
# Group and sequential offload hold about this share of the largest component at a time.
_SHARE_OF_LARGEST = 0.1


class PeakPredictor:
    """What was measured so far says of the most memory in a call of every candidate.

    Attributes:
        held_gb: For each axis what its component holds under each option, in GiB.
        held_gb_sd: How far that may be off.

    Args:
        priors: The space, and what is expected of its options.
        reference: The measurement of the candidate that changes nothing.
        indices: Where the measured candidates stand, shape (n, axes).
        measured: Their measurements.
        estimates: What cheaper measurements say of choices alone.
    """

    def __init__(
        self,
        priors: Priors,
        reference: Measured,
        indices: Indices,
        measured: Sequence[Measured],
        estimates: Sequence[Estimate],
    ) -> None:
        self._axes = priors.axes
        self._reference = reference
        self._indices = indices
        of_axes = [
            self._held_by(place, priors, measured, estimates) for place in range(len(self._axes))
        ]
        self.held_gb, self.held_gb_sd = zip(*of_axes, strict=True)
        held, _ = self._held_at(positions_of(np.zeros((1, len(self._axes)), dtype=np.int64)))
        least = _LEAST_ACTIVATIONS * reference.peak_gb
        self._base_gb = max(reference.peak_gb - float(held[0]), least)
        peaks = np.array([m.peak_gb for m in measured])
        shares = (peaks - self._held_at(positions_of(indices))[0]) / self._base_gb - 1
        self._activations = priors.activations()
        self._activations.fit(indices, shares, np.full(len(shares), _ACTIVATION_NOISE))

    def predict(self, positions: Positions) -> tuple[Floats, Floats]:
        """Mean and standard deviation in GiB for the candidates at ``positions``."""
        held, held_sd = self._held_at(positions)
        more, more_sd = self._activations.predict(positions)
        more_sd = np.hypot(np.hypot(more_sd, self._unseen_together(positions)), _ACTIVATION_NOISE)
        return held + self._base_gb * (1 + more), np.hypot(more_sd * self._base_gb, held_sd)

    def _held_by(
        self,
        place: int,
        priors: Priors,
        measured: Sequence[Measured],
        estimates: Sequence[Estimate],
    ) -> tuple[Floats, Floats]:
        """GiB that one component holds under each option, and how far that may be off."""
        axis = self._axes[place]
        whole = self._reference.component_gb.get(axis.name, 0.0)
        if whole == 0.0:
            return np.zeros(len(axis.options)), np.zeros(len(axis.options))
        known = [estimate for estimate in estimates if estimate.component == axis.name]
        held = [m.component_gb.get(axis.name, whole) for m in measured]
        held += [estimate.component_gb for estimate in known]
        noise = [_WEIGHTS_NOISE] * len(measured)
        noise += [max(_WEIGHTS_NOISE, estimate.component_gb_sd / whole) for estimate in known]
        rows = [*self._indices[:, place], *(axis.position[estimate.choice] for estimate in known)]
        effects = priors.weights(place)
        effects.fit(
            np.array(rows, dtype=np.int64)[:, None], np.array(held) / whole - 1, np.array(noise)
        )
        mean, sd = effects.predict([np.arange(len(axis.options))])
        return whole * (1 + mean), whole * sd

    def _held_at(self, positions: Positions) -> tuple[Floats, Floats]:
        """GiB on the device while a call runs, as far as components and offload tell."""
        held = [gb[at] for gb, at in zip(self.held_gb, positions, strict=True)]
        deviations = [sd[at] for sd, at in zip(self.held_gb_sd, positions, strict=True)]
        known = self._reference.component_gb
        others = [gb for name, gb in known.items() if name not in {a.name for a in self._axes}]
        rest = self._reference.weights_gb - sum(known.values()) + sum(others)
        largest = np.maximum(reduce(np.maximum, held), max(others, default=0.0))
        offload = np.array(
            [getattr(option, "offload", "none") for option in self._axes[-1].options]
        )[positions[-1]]
        there = np.where(
            offload == "none",
            reduce(np.add, held) + rest,
            np.where(offload == "model", largest, _SHARE_OF_LARGEST * largest),
        )
        return there, np.sqrt(reduce(np.add, (sd**2 for sd in deviations)))

    def _unseen_together(self, positions: Positions) -> Floats:
        """How far a lever's effect on the activations may be off where it was not seen.

        The peak is the largest of several stages, and a lever acts on one of them: what it saves
        beside one choice for the largest component says little of what it saves beside another.
        """
        sizes = [self._reference.component_gb.get(axis.name, 0.0) for axis in self._axes]
        largest, levers = int(np.argmax(sizes)), len(self._axes) - 1
        mean, _ = self._activations.of_axis(levers)
        seen = np.zeros((len(self._axes[largest].options), len(mean)), dtype=bool)
        seen[self._indices[:, largest], self._indices[:, levers]] = True
        known = seen[positions[largest], positions[levers]]
        return np.where(known, 0.0, np.abs(mean)[positions[levers]])


class LoadPeakPredictor:
    """What was measured so far says of the most memory while a candidate is loaded.

    Args:
        priors: The space, and what is expected of its options.
        reference: The measurement of the candidate that changes nothing.
        indices: Where the measured candidates stand, shape (n, axes).
        measured: Their measurements.
    """

    def __init__(
        self,
        priors: Priors,
        reference: Measured,
        indices: Indices,
        measured: Sequence[Measured],
    ) -> None:
        self._base_gb = reference.load_peak_gb
        # With offload nothing is on the device while the reference is loaded.
        self._scale_gb = max(reference.load_peak_gb, reference.weights_gb)
        shares = (np.array([m.load_peak_gb for m in measured]) - self._base_gb) / self._scale_gb
        self._effects = priors.activations()
        self._effects.fit(indices, shares, np.full(len(shares), _ACTIVATION_NOISE))

    def predict(self, positions: Positions) -> tuple[Floats, Floats]:
        """Mean and standard deviation in GiB for the candidates at ``positions``."""
        share, sd = self._effects.predict(positions)
        spread = np.hypot(sd, _ACTIVATION_NOISE)
        return self._base_gb + self._scale_gb * share, self._scale_gb * spread
