"""Axes of a plot: where a value lies, and which ticks are drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_STEPS = (1, 2, 2.5, 5, 10)
_TARGET_TICKS = 5
_PADDING = 0.06


@dataclass(frozen=True)
class Tick:
    """A labelled position in pixels."""

    at: float
    text: str


@dataclass(frozen=True)
class Unit:
    """What an axis is labelled in: ``factor`` of these are one of the value's own unit."""

    name: str
    factor: float


def memory_unit(gb: Sequence[float]) -> Unit:
    """MB where everything is below a tenth of a GB, as in ``quantities.gigabytes``."""
    return Unit("MB", 1024.0) if max(gb) < 0.1 else Unit("GB", 1.0)


def time_unit(seconds: Sequence[float]) -> Unit:
    """Milliseconds where everything is below a second, minutes where all is above two."""
    if max(seconds) < 1:
        return Unit("ms", 1000.0)
    return Unit("min", 1 / 60) if min(seconds) > 120 else Unit("s", 1.0)


@dataclass(frozen=True)
class LinearAxis:
    """Values from ``low`` to ``high`` between the pixels ``start`` and ``end``."""

    low: float
    high: float
    start: float
    end: float
    unit: Unit

    @classmethod
    def around(cls, values: Sequence[float], start: float, end: float, unit: Unit) -> LinearAxis:
        """An axis with some room on both sides of ``values``, which are not negative."""
        low, high = min(values), max(values)
        room = _PADDING * (high - low) or 0.1 * high or 1.0
        return cls(max(0.0, low - room), high + room, start, end, unit)

    def place(self, value: float) -> float:
        """The pixel of a value."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> tuple[Tick, ...]:
        """Round values, about five."""
        low, high = self.low * self.unit.factor, self.high * self.unit.factor
        step = _round_step((high - low) / _TARGET_TICKS)
        numbers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
        return tuple(
            Tick(self.place(number * step / self.unit.factor), f"{number * step:.6g}")
            for number in numbers
        )


@dataclass(frozen=True)
class RootAxis:
    """Losses from 0 to ``high`` by their square root: the good ones are small and lie together."""

    high: float
    start: float
    end: float

    @classmethod
    def up_to(cls, values: Sequence[float], start: float, end: float) -> RootAxis:
        """An axis from 0 to a little above the largest of ``values``."""
        return cls((max(values) or 0.01) * (1 + 2 * _PADDING), start, end)

    def place(self, value: float) -> float:
        """The pixel of a loss."""
        return self.start + math.sqrt(max(0.0, value) / self.high) * (self.end - self.start)

    def ticks(self, apart: float = 34.0) -> tuple[Tick, ...]:
        """Zero and round values, at least ``apart`` pixels from one another."""
        ticks = [Tick(self.place(0.0), "0")]
        for value in _round_values_below(self.high):
            at = self.place(value)
            if all(abs(at - tick.at) >= apart for tick in ticks):
                ticks.append(Tick(at, f"{value:.6g}"))
        return tuple(ticks)


def _round_step(rough: float) -> float:
    scale: float = 10.0 ** math.floor(math.log10(rough))
    return next(step * scale for step in _STEPS if step * scale >= rough * (1 - 1e-9))


def _round_values_below(high: float) -> Iterator[float]:
    """5, 2, 1 times powers of ten, falling over three decades."""
    exponent = math.floor(math.log10(high))
    for decade in range(exponent, exponent - 3, -1):
        for step in (5, 2, 1):
            value = step * 10.0**decade
            if value <= high:
                yield value
