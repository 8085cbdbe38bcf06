"""How long each phase of a measurement may take, from what it took for the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from autoquant.planner.phases import Phase

_FACTOR = 10.0
_LEAST_S: Mapping[Phase, float] = MappingProxyType(
    {
        # A kernel may be compiled on first use, which quanto does.
        "open": 300.0,
        "load": 300.0,
        # torch.compile works here.
        "warm up": 900.0,
        "draw": 120.0,
        "score": 120.0,
    }
)


@dataclass(frozen=True)
class Patience:
    """Time limits of a candidate's phases.

    Attributes:
        reference_s: Seconds that each phase took for the reference.
        factor: How many times slower a candidate may be.
        least_s: Seconds that each phase has in any case.
    """

    reference_s: Mapping[Phase, float] = field(default_factory=dict)
    factor: float = _FACTOR
    least_s: Mapping[Phase, float] = field(default_factory=lambda: _LEAST_S)

    def limit_s(self, phase: Phase) -> float:
        """Seconds that ``phase`` may take."""
        return max(self.least_s[phase], self.factor * self.reference_s.get(phase, 0.0))
