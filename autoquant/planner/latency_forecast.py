"""Predict the seconds of a call: what options add to the reference's, as ``effects`` says.

What disturbs a call lasts as long as the call does, so calls scatter by a share of their own
seconds. How large it is depends on what else the machine does; few measurements do not tell, so
the predictions under several shares are averaged, each weighted by how likely it makes what was
measured (C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 3.4).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoquant.planner.axes import Indices, Positions
from autoquant.planner.effects import Floats, averaged
from autoquant.planner.measurement import Measured
from autoquant.planner.priors import Priors

_SCATTERS = (0.01, 0.02, 0.05, 0.1, 0.2)


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
        fits = [priors.seconds() for _ in _SCATTERS]
        for scatter, fit in zip(_SCATTERS, fits, strict=True):
            fit.fit(indices, times - 1, scatter * times)
        evidence = np.array([fit.log_evidence for fit in fits])
        weights = np.exp(evidence - evidence.max())
        weights /= weights.sum()
        self._scatter = float(np.sqrt(weights @ np.square(_SCATTERS)))
        self._effects = averaged(fits, weights)

    def predict(self, positions: Positions) -> tuple[Floats, Floats]:
        """Mean and standard deviation in seconds for the candidates at ``positions``."""
        added, sd = self._effects.predict(positions)
        times = np.maximum(0.0, 1 + added)
        return self._reference_s * times, self._reference_s * np.hypot(sd, self._scatter * times)

    def of_axis(self, axis: int) -> tuple[Floats, Floats]:
        """What each option of one axis adds, as a share."""
        return self._effects.of_axis(axis)
