"""What PyTorch's caching allocator reserves for a sequence of allocations.

A budget is compared with reserved memory, because that is what a card runs out of; it exceeds what
is allocated by roundings, by holes, and by freed blocks that no later request fits. The constants
and rules are those of c10/cuda/CUDACachingAllocator.cpp without expandable segments.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass

from autoquant.planner.footprint.tape import Block, Event

_MIB = 2**20
_GRAIN = 512
_SMALL = _MIB
_SMALL_SEGMENT = 2 * _MIB
_MIDDLE = 10 * _MIB
_MIDDLE_SEGMENT = 20 * _MIB
_LARGE_GRAIN = 2 * _MIB


@dataclass(eq=False)
class _Piece:
    """A stretch of a segment; ``before`` and ``after`` are its neighbours there."""

    size: int
    is_small: bool
    is_free: bool = False
    before: _Piece | None = None
    after: _Piece | None = None


class CachingAllocator:
    """Follows allocations and frees; ``reserved_bytes`` only ever grows, as in a run."""

    def __init__(self) -> None:
        self.reserved_bytes = 0
        self._held: dict[Block, _Piece] = {}
        # Free pieces by size for each pool; the running number keeps equal sizes apart.
        self._free: dict[bool, list[tuple[int, int, _Piece]]] = {True: [], False: []}
        self._tickets = 0

    def play(self, events: Iterable[Event]) -> None:
        """Carry out a tape."""
        for event in events:
            if event.n_bytes:
                self._held[event.block] = self._take(event.n_bytes)
            elif event.block in self._held:
                self._give_back(self._held.pop(event.block))

    def keep(self, n_bytes: int) -> None:
        """Allocate something that is never freed."""
        if n_bytes:
            self._take(n_bytes)

    def _take(self, n_bytes: int) -> _Piece:
        size = _rounded(n_bytes, _GRAIN)
        is_small = size <= _SMALL
        pool = self._free[is_small]
        place = bisect_left(pool, size, key=lambda entry: entry[0])
        if place < len(pool):
            piece = pool.pop(place)[2]
            piece.is_free = False
        else:
            piece = _Piece(_segment_bytes(size), is_small)
            self.reserved_bytes += piece.size
        self._split(piece, size)
        return piece

    def _split(self, piece: _Piece, size: int) -> None:
        rest = piece.size - size
        if rest < _GRAIN if piece.is_small else rest <= _SMALL:
            return
        remainder = _Piece(rest, piece.is_small, True, before=piece, after=piece.after)
        if piece.after is not None:
            piece.after.before = remainder
        piece.size, piece.after = size, remainder
        self._put(remainder)

    def _give_back(self, piece: _Piece) -> None:
        piece.is_free = True
        for neighbour in (piece.before, piece.after):
            if neighbour is not None and neighbour.is_free:
                self._remove(neighbour)
                _swallow(piece, neighbour)
        self._put(piece)

    def _put(self, piece: _Piece) -> None:
        self._tickets += 1
        insort(
            self._free[piece.is_small],
            (piece.size, self._tickets, piece),
            key=lambda entry: entry[:2],
        )

    def _remove(self, piece: _Piece) -> None:
        pool = self._free[piece.is_small]
        place = bisect_left(pool, piece.size, key=lambda entry: entry[0])
        while pool[place][2] is not piece:
            place += 1
        del pool[place]


def reserved_for(sizes: Iterable[int]) -> int:
    """Bytes reserved once tensors of these sizes have been allocated one after another."""
    allocator = CachingAllocator()
    for size in sizes:
        allocator.keep(size)
    return allocator.reserved_bytes


def _segment_bytes(size: int) -> int:
    if size <= _SMALL:
        return _SMALL_SEGMENT
    if size < _MIDDLE:
        return _MIDDLE_SEGMENT
    return _rounded(size, _LARGE_GRAIN)


def _rounded(size: int, grain: int) -> int:
    return -(-size // grain) * grain


def _swallow(piece: _Piece, neighbour: _Piece) -> None:
    if neighbour is piece.before:
        piece.before = neighbour.before
        if piece.before is not None:
            piece.before.after = piece
    else:
        piece.after = neighbour.after
        if piece.after is not None:
            piece.after.before = piece
    piece.size += neighbour.size
