"""Texts beside the marks of a plot, placed so that they overlap neither each other nor the edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Side = Literal["start", "end"]

GAP = 11.0
"""Pixels between the centre of a mark and its text."""

RISE = 9.0
"""Pixels from the centre of a mark up to the baseline of its text."""

# Wide enough for the larger text on narrow screens.
_CHARACTER = 9.0
_LINE = 17.0


@dataclass(frozen=True)
class Label:
    """A text at ``x``, ``y`` that begins or ends there."""

    text: str
    x: float
    y: float
    side: Side


def place_labels(
    wanted: Sequence[tuple[str, float, float]],
    left: float,
    right: float,
    line: float | None = None,
) -> tuple[Label | None, ...]:
    """Place each text beside its point, the first ones first; None where there is no room.

    Args:
        wanted: Text, x and y of each point.
        left: Left edge of the room.
        right: Right edge of the room.
        line: An upright line that a text had better not cross.
    """
    placed: list[Label | None] = []
    for text, x, y in wanted:
        options = [Label(text, x + GAP, y - RISE, "start"), Label(text, x - GAP, y - RISE, "end")]
        others = [label for label in placed if label is not None]
        free = [option for option in options if _fits(option, others, left, right)]
        uncrossed = [option for option in free if line is None or not _crosses(option, line)]
        placed.append(next(iter(uncrossed or free), None))
    return tuple(placed)


def _extent(label: Label) -> tuple[float, float]:
    width = _CHARACTER * len(label.text)
    return (label.x, label.x + width) if label.side == "start" else (label.x - width, label.x)


def _fits(label: Label, others: Sequence[Label], left: float, right: float) -> bool:
    start, end = _extent(label)
    return left <= start and end <= right and not any(_overlap(label, other) for other in others)


def _overlap(one: Label, other: Label) -> bool:
    (start, end), (other_start, other_end) = _extent(one), _extent(other)
    return abs(one.y - other.y) < _LINE and start < other_end and other_start < end


def _crosses(label: Label, line: float) -> bool:
    start, end = _extent(label)
    return start < line < end
