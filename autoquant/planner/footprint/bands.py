"""How far predictions were from published measurements: the error bands.

Each end is the worst error of its kind in docs/estimate.md, rounded outwards; that page is made by
benchmarks/estimate_published.py from rows that no constant of the predictions was fitted to.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Band:
    """What the truth may be, as factors of what is predicted."""

    low: float
    high: float

    def at(self, end: str, n_bytes: float) -> float:
        """One end of the band around ``n_bytes``: ``low``, ``middle`` or ``high``."""
        return n_bytes * {"low": self.low, "middle": 1.0, "high": self.high}[end]


WEIGHTS_BAND = Band(0.98, 1.03)
PEAK_BAND = Band(0.95, 1.05)
RAM_BAND = Band(0.95, 1.15)
