"""Predict candidates that were not measured from those that were.

Memory is what each component holds plus the activations; seconds add; losses, with the noise floor
still in them, combine as a p-norm whose p is fitted: 1 where damages add, 2 where they are
independent, more where the worst one decides. ``effects`` says how the options' effects are
learned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from autoquant.planner.axes import Indices, Positions, indices_of
from autoquant.planner.budget import Budget
from autoquant.planner.effects import Effects, Floats
from autoquant.planner.latency_forecast import LatencyPredictor
from autoquant.planner.measurement import Estimate, Measured, Prediction, Trial, image_losses
from autoquant.planner.priors import Priors
from autoquant.planner.ram_forecast import RamPredictor

_POWERS = (1.0, 1.5, 2.0, 3.0, 5.0)

# Effects do not explain this much of a loss (its logarithm), of the activations.
_LOSS_NOISE = 0.005
# Spread of one image's loss, against how hard that image is. Over all candidates of the recorded
# table it is twice that, but candidates that are alike are off alike.
_IMAGE_NOISE = 0.1
# Correlation between the damages of two options: its standard deviation.
_CORRELATION = 0.1
_ACTIVATION_NOISE = 0.01
# A loss below this is none.
_NO_LOSS = 1e-6
# Of the reference's peak; where less was counted, it was counted beside something else.
_LEAST_ACTIVATIONS = 0.01
# Bytes are counted; this keeps a matrix from being singular.
_WEIGHTS_NOISE = 1e-5
# Group and sequential offload hold about this share of the largest component at a time.
_SHARE_OF_LARGEST = 0.1


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
        self._estimates = estimates
        self._priors = priors
        self._axes = axes = priors.axes
        self._reference = reference
        placed = [(indices_of(trial.candidate, axes), trial) for trial in trials]
        known = [(at, t.measured) for at, t in placed if at is not None and t.measured is not None]
        self._indices = np.array([at for at, _ in known], dtype=np.int64).reshape(-1, len(axes))
        self._measured = [measured for _, measured in known]
        self._floor = reference.noise_floor
        self._held, self._held_sd = self._fit_weights()
        held, _ = self._held_at(np.zeros((len(axes), 1), dtype=np.int64))
        self._base_gb = max(reference.peak_gb - held[0], _LEAST_ACTIVATIONS * reference.peak_gb)
        self._activations = self._fit_activations()
        self._seconds = LatencyPredictor(priors, reference, self._indices, self._measured)
        self._load_peak = self._ram = None
        if budget and budget.load_peak_gb is not None:
            self._load_peak = self._fit_load_peak()
        if budget and budget.ram_gb is not None and reference.ram_gb is not None:
            self._ram = RamPredictor(priors, reference, self._held, self._indices, self._measured)
        self.power, self._loss = self._fit_loss()
        self._off = _spreads_off(trials, self._floor)

    def forecast(self, positions: Positions) -> Forecast:
        """Predict the candidates at ``positions``."""
        held, held_sd = self._held_at(positions)
        active, active_sd = self._activations.predict(positions)
        seconds, seconds_sd = self._seconds.predict(positions)
        loading, loading_sd = self._load_peak_at(positions)
        log_loss, log_loss_sd = self._loss.predict(positions)
        base = self._base_gb
        active_sd = np.hypot(active_sd, self._unseen_together(positions))
        peak_sd = np.hypot(np.hypot(active_sd, _ACTIVATION_NOISE) * base, held_sd)
        ram, ram_sd = (None, None) if self._ram is None else self._ram.predict(positions)
        return Forecast(
            log_loss=np.maximum(log_loss, np.log(self._least_loss)),
            log_loss_sd=np.hypot(log_loss_sd, self._unexplained(self._loss, positions))
            * self._off["loss"],
            floor=max(self._floor, _NO_LOSS),
            peak_gb=held + base * (1 + active),
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
        loss, loss_sd = self._loss.of_axis(axis)
        loss = np.where(self._axes[axis].damages, loss - loss_sd, -np.inf)
        held = self._held[axis] - self._held_sd[axis]
        return np.stack([held, seconds - seconds_sd, loss], axis=1)

    @property
    def _least_loss(self) -> float:
        """A loss so small that its logarithm stands for none."""
        return max(0.05 * self._floor, _NO_LOSS)

    def _fit_weights(self) -> tuple[list[Floats], list[Floats]]:
        """GiB that each component holds under each option, and how far that may be off."""
        held, spread = [], []
        for place, axis in enumerate(self._axes):
            whole = self._reference.component_gb.get(axis.name, 0.0)
            if whole == 0.0:
                held.append(np.zeros(len(axis.options)))
                spread.append(np.zeros(len(axis.options)))
                continue
            effects = self._priors.weights(place)
            shares = [m.component_gb.get(axis.name, whole) / whole - 1 for m in self._measured]
            noise = [_WEIGHTS_NOISE] * len(shares)
            rows = self._indices[:, [place]]
            for estimate in self._estimates:
                if estimate.component == axis.name:
                    shares.append(estimate.component_gb / whole - 1)
                    noise.append(max(_WEIGHTS_NOISE, estimate.component_gb_sd / whole))
                    rows = np.vstack([rows, [[axis.position[estimate.choice]]]])
            effects.fit(rows, np.array(shares), np.array(noise))
            mean, sd = effects.predict([np.arange(len(axis.options))])
            held.append(whole * (1 + mean))
            spread.append(whole * sd)
        return held, spread

    def _held_at(self, positions: Positions) -> tuple[Floats, Floats]:
        """GiB on the device while a call runs, as far as components and offload tell."""
        held = [gb[at] for gb, at in zip(self._held, positions, strict=True)]
        deviations = [sd[at] for sd, at in zip(self._held_sd, positions, strict=True)]
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

    def _fit_activations(self) -> Effects:
        base = self._base_gb
        held, _ = self._held_at(self._indices.T)
        shares = [
            (measured.peak_gb - known) / base - 1
            for measured, known in zip(self._measured, held, strict=True)
        ]
        return self._fit(
            self._priors.activations(), shares, np.full(len(shares), _ACTIVATION_NOISE)
        )

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

    def _fit_load_peak(self) -> Effects:
        base = self._reference.load_peak_gb
        shares = [measured.load_peak_gb / base - 1 for measured in self._measured]
        return self._fit(
            self._priors.activations(), shares, np.full(len(shares), _ACTIVATION_NOISE)
        )

    def _load_peak_at(self, positions: Positions) -> tuple[Floats | None, Floats | None]:
        if self._load_peak is None:
            return None, None
        base = self._reference.load_peak_gb
        share, sd = self._load_peak.predict(positions)
        return base * (1 + share), base * np.hypot(sd, _ACTIVATION_NOISE)

    def _fit(self, effects: Effects, values: Sequence[float], noise: Floats) -> Effects:
        effects.fit(self._indices, np.array(values), noise)
        return effects

    def _fit_loss(self) -> tuple[float, Effects]:
        """The likeliest exponent, and the effects under it."""
        damaged = [
            any(axis.damages[place] for axis, place in zip(self._axes, row, strict=True))
            for row in self._indices
        ]
        raw = np.array([raw_loss(measured) for measured in self._measured])[damaged]
        values = np.log(np.maximum(raw, self._least_loss))
        rows = self._indices[damaged]
        undrawn = np.array([undrawn_noise(measured) for measured in self._measured])[damaged]
        estimated = [estimate for estimate in self._estimates if estimate.loss > 0]
        logs = [np.log(estimate.loss + self._floor) for estimate in estimated]
        values = np.concatenate([values, logs])
        raw = np.concatenate([raw, np.exp(logs)])
        for estimate in estimated:
            rows = np.vstack([rows, self._row_of(estimate)])
        fits = {power: self._priors.losses(power) for power in _POWERS}
        for effects in fits.values():
            # A loss that stands for none says no more than that it is small.
            for _ in range(2):
                noise = np.where(raw > self._least_loss, self._unexplained(effects, rows.T), 0.5)
                noise[len(noise) - len(estimated) :] = [it.log_loss_sd for it in estimated]
                noise[: len(undrawn)] = np.hypot(noise[: len(undrawn)], undrawn)
                effects.fit(rows, values, noise)
        power = max(fits, key=lambda p: (fits[p].log_evidence, p == 2.0))
        return power, fits[power]

    def _row_of(self, estimate: Estimate) -> Indices:
        row = np.zeros(len(self._axes), dtype=np.int64)
        for place, axis in enumerate(self._axes):
            if axis.name == estimate.component:
                row[place] = axis.position[estimate.choice]
        return row

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
