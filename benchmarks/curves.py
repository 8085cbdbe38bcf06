"""Draw curves over a logarithmic axis as an SVG file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from autoquant.files import write_text

_WIDTH, _HEIGHT = 760, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 150, 20, 52
_COLOURS = ("#0b6e4f", "#c0392b", "#2c5aa0", "#8e44ad", "#7f8c8d")


@dataclass(frozen=True)
class Curve:
    """A line with a name; x above 0, y from 0 to 1."""

    name: str
    points: tuple[tuple[float, float], ...]


def draw_curves(path: Path, curves: Sequence[Curve], *, x_label: str, y_label: str) -> None:
    """Write the picture; x is drawn logarithmically."""
    lowest = math.log10(min(x for curve in curves for x, _ in curve.points))
    highest = math.log10(max(x for curve in curves for x, _ in curve.points))
    inner_width, inner_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def across(x: float) -> float:
        return _LEFT + inner_width * (math.log10(x) - lowest) / (highest - lowest)

    def down(y: float) -> float:
        return _TOP + inner_height * (1 - y)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{down(share):.1f}" '
            f'y2="{down(share):.1f}" stroke="#ddd"/>'
            f'<text x="{_LEFT - 8}" y="{down(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>'
        )
    for x in (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1):
        if lowest - 1e-9 <= math.log10(x) <= highest + 1e-9:
            parts.append(
                f'<line x1="{across(x):.1f}" x2="{across(x):.1f}" y1="{down(0)}" '
                f'y2="{down(0) + 5}" stroke="black"/><text x="{across(x):.1f}" '
                f'y="{down(0) + 20}" text-anchor="middle">{100 * x:g}%</text>'
            )
    ends: list[float] = []
    for number, curve in enumerate(curves):
        colour = _COLOURS[number % len(_COLOURS)]
        line = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in curve.points)
        width = 3 if number == 0 else 1.8
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
        )
        x, y = curve.points[-1]
        place = _free(down(y), ends)
        ends.append(place)
        parts.append(
            f'<text x="{across(x) + 6:.1f}" y="{place + 4:.1f}" fill="{colour}">'
            f"{escape(curve.name)}</text>"
        )
    middle = _LEFT + inner_width / 2
    parts += [
        f'<text x="{middle}" y="{_HEIGHT - 10}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text transform="translate(16 {_TOP + inner_height / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>',
        "</svg>",
    ]
    write_text(path, "\n".join(parts) + "\n")


def _free(place: float, taken: Sequence[float]) -> float:
    """The nearest height below ``place`` where a label hides no other."""
    while any(abs(place - other) < 15 for other in taken):
        place += 3
    return place
