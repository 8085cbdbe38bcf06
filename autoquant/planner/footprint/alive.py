"""Closed forms: so many tensors of one size are alive at a stage's worst moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoquant.planner.footprint.tape import Tape


@dataclass(frozen=True)
class Alive:
    """Tensors alive at the worst moment of a stage: ``count`` of ``numbers`` each."""

    count: float
    numbers: int

    @property
    def total(self) -> int:
        """Numbers alive."""
        return round(self.count * self.numbers)


def held_at_once(alive: Sequence[Alive], itemsize: int) -> Tape:
    """A tape that holds all of ``alive`` at once, in blocks of their own sizes."""
    tape = Tape(itemsize)
    blocks = []
    for tensors in alive:
        whole = int(tensors.count)
        blocks += [tape.new(tensors.numbers) for _ in range(whole)]
        rest = tensors.total - whole * tensors.numbers
        blocks += [tape.new(rest)] if rest > 0 else []
    tape.free(*blocks)
    return tape
