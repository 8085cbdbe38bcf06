"""Predict the seconds of a call: what options add to the reference's, as ``effects`` says.

What disturbs a call lasts as long as the call does, so calls scatter by a share of their own
seconds. How large it is depends on what else the machine does; few measurements do not tell, so
the predictions under several shares are averaged, each weighted by how likely it makes what was
measured (C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 3.4).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoquant.planner.axes import Indices
from autoquant.planner.effects import Effects, Floats
from autoquant.planner.measurement import Measured
from autoquant.planner.priors import Priors

_SCATTERS = (0.01, 0.02, 0.05, 0.1, 0.2)
# Less is not worth a prediction.
_LEAST_WEIGHT = 0.01


class LatencyPredictor:
    """What was measured so far says of the seconds of every candidate.

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
        self._reference_s = reference.latency_s.median
        times = np.array([m.latency_s.median for m in measured]) / self._reference_s
        self._fits: dict[float, Effects] = {}
        for scatter in _SCATTERS:
            self._fits[scatter] = priors.seconds()
            self._fits[scatter].fit(indices, times - 1, scatter * times)
        evidence = np.array([fit.log_evidence for fit in self._fits.values()])
        weights = np.exp(evidence - evidence.max())
        weights[weights < _LEAST_WEIGHT] = 0.0
        self._weights = weights / weights.sum()

    def predict(self, indices: Indices) -> tuple[Floats, Floats]:
        """Mean and standard deviation in seconds for the candidates at ``indices``, (n, axes)."""
        mean, square = np.zeros(len(indices)), np.zeros(len(indices))
        for weight, (scatter, fit) in zip(self._weights, self._fits.items(), strict=True):
            if weight == 0.0:
                continue
            added, sd = fit.predict(indices)
            times = np.maximum(0.0, 1 + added)
            mean += weight * times
            square += weight * (times**2 + sd**2 + (scatter * times) ** 2)
        return self._reference_s * mean, self._reference_s * np.sqrt(
            np.maximum(square - mean**2, 0.0)
        )

    def of_axis(self, axis: int) -> tuple[Floats, Floats]:
        """What each option of one axis adds, as a share, under the likeliest scatter."""
        return list(self._fits.values())[int(self._weights.argmax())].of_axis(axis)
