"""How far predictions may be off: the error bands.

They come from benchmarks/estimate_published.py, whose output is in docs/estimate.md.
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


# Every published row of allocated bytes lies within; the bytes of a scheme are exact, so what is
# left are kernels' buffers and small tensors.
WEIGHTS_BAND = Band(0.99, 1.02)

# Every published row of reserved bytes and of peaks lies within, those of quanto:int4 and of
# quanto:float8 excepted, where the table and the library disagree on what was quantized.
PEAK_BAND = Band(0.95, 1.05)

# Nobody has published RAM: this is judgement. Libraries and interpreters take half a GB to one.
RAM_BAND = Band(0.95, 1.15)
