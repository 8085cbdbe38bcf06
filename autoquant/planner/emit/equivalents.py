"""The nearest thing that another tool has to a scheme, and what to say about the difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autoquant.search_spaces.backends import backend
from autoquant.search_spaces.scheme import Scheme


@dataclass(frozen=True)
class Equivalent:
    """What a tool calls a scheme.

    Attributes:
        name: The tool's own word.
        exact: Whether it makes the same numbers of the same weights.
    """

    name: str
    exact: bool

    def loss(self, component: str, scheme: str, tool: str) -> str:
        """What to say of an equivalent that is not exact."""
        return (
            f"{component}: {scheme} becomes {tool}'s {self.name}, of the same width but with other "
            "numbers, so the measured fidelity and latency do not hold for it"
        )


def equivalent(
    scheme: str, exact: Mapping[str, str], by_width: Mapping[str, str]
) -> Equivalent | None:
    """A tool's name for ``scheme``, or None if it stores nothing of that width.

    Args:
        scheme: ``backend:precision``.
        exact: The tool's names for whole schemes.
        by_width: The tool's names for widths: ``8`` and ``float8``, ``4`` … in bits.
    """
    if scheme in exact:
        return Equivalent(exact[scheme], exact=True)
    parsed = Scheme.parse(scheme)
    bits = backend(parsed.backend).precisions.get(parsed.precision)
    if bits is None:
        return None
    width = f"{bits:g}"
    for kind in (f"float{width}", width) if parsed.precision.startswith("float") else (width,):
        if kind in by_width:
            return Equivalent(by_width[kind], exact=False)
    return None
