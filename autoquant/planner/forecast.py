"""Predict candidates that were not measured from those that were.

``memory_forecast``, ``latency_forecast``, ``loss_forecast`` and ``ram_forecast`` say how.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autoquant.planner.axes import Positions, indices_of
from autoquant.planner.budget import Budget
from autoquant.planner.effects import Floats
from autoquant.planner.latency_forecast import LatencyPredictor
from autoquant.planner.loss_forecast import NO_LOSS, LossPredictor, raw_loss, undrawn_noise
from autoquant.planner.measurement import Estimate, Measured, Prediction, Trial
from autoquant.planner.memory_forecast import LoadPeakPredictor, PeakPredictor
from autoquant.planner.priors import Priors
from autoquant.planner.ram_forecast import RamPredictor

_UNKNOWN = (None, None)


@dataclass(frozen=True)
class Forecast:
    """Predictions for candidates: means, and standard deviations of what they may be off.

    Attributes:
        log_loss: Logarithm of the loss before the noise floor is taken off.
        floor: The noise floor.
        peak_gb: Most memory in a call, in GiB.
        latency_s: Wall seconds of a call.
        load_peak_gb: Most memory while loading, in GiB, where it is limited.
        ram_gb: Most host memory while loading and calling, in GiB, where it is limited.
    """

    log_loss: Floats
    log_loss_sd: Floats
    floor: float
    peak_gb: Floats
    peak_gb_sd: Floats
    latency_s: Floats
    latency_s_sd: Floats
    load_peak_gb: Floats | None = None
    load_peak_gb_sd: Floats | None = None
    ram_gb: Floats | None = None
    ram_gb_sd: Floats | None = None

    def of(self, chosen: NDArray[np.bool_]) -> Forecast:
        """The candidates that are ``chosen``, one after the other."""
        figures = {
            name: figure[chosen] for name, figure in vars(self).items() if np.ndim(figure) > 0
        }
        return replace(self, **figures)

    def limited(self, budget: Budget) -> Iterator[tuple[float, Floats, Floats]]:
        """Each limit on memory and latency, with the mean and the deviation of what it limits."""
        limits = (
            (budget.vram_gb, self.peak_gb, self.peak_gb_sd),
            (budget.latency_s, self.latency_s, self.latency_s_sd),
            (budget.load_peak_gb, self.load_peak_gb, self.load_peak_gb_sd),
            (budget.ram_gb, self.ram_gb, self.ram_gb_sd),
        )
        for limit, mean, sd in limits:
            if limit is not None and mean is not None and sd is not None:
                yield limit, mean, sd

    def missed_share(self, budget: Budget) -> Floats:
        """Sum of the shares by which the means miss the limits on memory and latency."""
        missed = np.zeros_like(self.peak_gb)
        for limit, mean, _ in self.limited(budget):
            missed += np.maximum(0.0, mean / limit - 1)
        return missed

    def at(self, row: int) -> Prediction:
        """One row as plain numbers."""
        raw = float(np.exp(self.log_loss[row]))
        return Prediction(
            loss=max(0.0, raw - self.floor),
            log_loss_sd=float(self.log_loss_sd[row]),
            peak_gb=float(self.peak_gb[row]),
            peak_gb_sd=float(self.peak_gb_sd[row]),
            latency_s=float(self.latency_s[row]),
            latency_s_sd=float(self.latency_s_sd[row]),
        )


class Predictor:
    """What the trials so far say of every candidate of a space.

    Args:
        priors: The space, and what is expected of its options.
        reference: The measurement of the candidate that changes nothing.
        trials: What was measured; those that are not of the space are left out.
        estimates: What cheaper measurements say of choices alone.
        budget: What it limits of loading and of host memory is predicted too.
    """

    def __init__(
        self,
        priors: Priors,
        reference: Measured,
        trials: Sequence[Trial],
        estimates: Sequence[Estimate] = (),
        budget: Budget | None = None,
    ) -> None:
        self._axes = axes = priors.axes
        placed = [(indices_of(trial.candidate, axes), trial) for trial in trials]
        known = [(at, t.measured) for at, t in placed if at is not None and t.measured is not None]
        indices = np.array([at for at, _ in known], dtype=np.int64).reshape(-1, len(axes))
        measured = [measurement for _, measurement in known]
        self._floor = reference.noise_floor
        self._loss = LossPredictor(priors, self._floor, indices, measured, estimates)
        self._peak = PeakPredictor(priors, reference, indices, measured, estimates)
        self._seconds = LatencyPredictor(priors, reference, indices, measured)
        self._load_peak = self._ram = None
        if budget and budget.load_peak_gb is not None:
            self._load_peak = LoadPeakPredictor(priors, reference, indices, measured)
        if budget and budget.ram_gb is not None and reference.ram_gb is not None:
            self._ram = RamPredictor(priors, reference, self._peak.held_gb, indices, measured)
        self._off = _spreads_off(trials, self._floor)

    def forecast(self, positions: Positions) -> Forecast:
        """Predict the candidates at ``positions``."""
        log_loss, log_loss_sd = self._loss.predict(positions)
        peak, peak_sd = self._peak.predict(positions)
        seconds, seconds_sd = self._seconds.predict(positions)
        loading, loading_sd = self._load_peak.predict(positions) if self._load_peak else _UNKNOWN
        ram, ram_sd = self._ram.predict(positions) if self._ram else _UNKNOWN
        return Forecast(
            log_loss=log_loss,
            log_loss_sd=log_loss_sd * self._off["loss"],
            floor=max(self._floor, NO_LOSS),
            peak_gb=peak,
            peak_gb_sd=peak_sd * self._off["peak"],
            latency_s=seconds,
            latency_s_sd=seconds_sd * self._off["latency"],
            load_peak_gb=loading,
            load_peak_gb_sd=loading_sd,
            ram_gb=ram,
            ram_gb_sd=ram_sd,
        )

    def option_merits(self, axis: int) -> Floats:
        """For each option of an axis what it holds, its seconds and its loss at their best.

        Shape (options, 3); less is better in each column. These are one option's own: sums and
        norms over axes keep their order.
        """
        seconds, seconds_sd = self._seconds.of_axis(axis)
        held = self._peak.held_gb[axis] - self._peak.held_gb_sd[axis]
        return np.stack([held, seconds - seconds_sd, self._loss.least_of_axis(axis)], axis=1)


def _spreads_off(trials: Sequence[Trial], floor: float) -> dict[str, float]:
    """By how much the predictions so far were worse than they claimed to be, at least 1."""
    checked = [(t.predicted, t.measured) for t in trials if t.predicted and t.measured]
    off = {
        "loss": [
            np.log((raw_loss(m) + 1e-9) / (p.loss + floor + 1e-9))
            / np.hypot(p.log_loss_sd, undrawn_noise(m))
            for p, m in checked
            if m.loss > 0 and p.loss > 0
        ],
        "peak": [(m.peak_gb - p.peak_gb) / p.peak_gb_sd for p, m in checked],
        "latency": [(m.latency_s.median - p.latency_s) / p.latency_s_sd for p, m in checked],
    }
    return {
        name: float(np.clip(np.sqrt((1 + np.square(values).sum()) / (1 + len(values))), 1, None))
        if values
        else 1.0
        for name, values in off.items()
    }
