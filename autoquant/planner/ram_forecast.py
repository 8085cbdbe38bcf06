"""Predict host memory: the weights that lie there, and what loading and calling take beside them.

Components are loaded one after the other, each whole, and quantized before the next comes. They
stay in host memory where the device computes in it, and where they are offloaded; otherwise each
goes to the device. What options take beside that is learned, as ``effects`` says.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoquant.planner.axes import Indices, Positions, positions_of
from autoquant.planner.effects import Floats
from autoquant.planner.measurement import Measured
from autoquant.planner.priors import Priors

# The system counts pages, and allocators keep some of what is freed: shares of the reference's.
_NOISES = (0.01, 0.03, 0.1, 0.3, 1.0)
_HOST = "cpu."


class RamPredictor:
    """What was measured so far says of the host memory of every candidate.

    Args:
        priors: The space, and what is expected of its options.
        reference: The measurement of the candidate that changes nothing.
        held_gb: For each axis what its options hold, in GiB.
        indices: Where the measured candidates stand, shape (n, axes).
        measured: Their measurements.
    """

    def __init__(
        self,
        priors: Priors,
        reference: Measured,
        held_gb: Sequence[Floats],
        indices: Indices,
        measured: Sequence[Measured],
    ) -> None:
        assert reference.ram_gb is not None
        self._axes = priors.axes
        self._whole_gb = reference.component_gb
        self._is_host = reference.counter.startswith(_HOST)
        self._held_gb = held_gb
        self._scale_gb = max(reference.ram_gb, sum(self._whole_gb.values()))
        unchanged = positions_of(np.zeros((1, len(self._axes)), dtype=np.int64))
        self._beside_gb = reference.ram_gb - float(self._weights(unchanged)[0])
        known = np.array([m.ram_gb is not None for m in measured], dtype=bool)
        taken = np.array([m.ram_gb for m in measured if m.ram_gb is not None])
        rows = indices[known]
        shares = (taken - self._weights(positions_of(rows)) - self._beside_gb) / self._scale_gb
        fits = {noise: priors.ram() for noise in _NOISES}
        for noise, effects in fits.items():
            effects.fit(rows, shares, np.full(len(shares), noise))
        self._noise = max(fits, key=lambda noise: fits[noise].log_evidence)
        self._effects = fits[self._noise]

    def predict(self, positions: Positions) -> tuple[Floats, Floats]:
        """Mean and standard deviation in GiB for the candidates at ``positions``."""
        mean, sd = self._effects.predict(positions)
        expected = self._weights(positions) + self._beside_gb + self._scale_gb * mean
        return expected, self._scale_gb * np.hypot(sd, self._noise)

    def _weights(self, positions: Positions) -> Floats:
        """Most GiB of weights at a time."""
        place = {axis.name: number for number, axis in enumerate(self._axes)}
        kept = highest = np.zeros_like(positions[-1], dtype=np.float64)
        for name, whole in self._whole_gb.items():
            highest = np.maximum(highest, kept + whole)
            axis = place.get(name)
            kept = kept + (whole if axis is None else self._held_gb[axis][positions[axis]])
        if self._is_host:
            return highest
        runtimes = self._axes[-1].options
        offloads = np.array([getattr(runtime, "offload", "none") for runtime in runtimes])
        largest = max(self._whole_gb.values(), default=0.0)
        return np.where(offloads[positions[-1]] == "none", largest, highest)
