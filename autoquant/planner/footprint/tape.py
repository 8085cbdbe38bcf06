"""A record of what a run allocates and frees, in order, without running it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import NewType

Block = NewType("Block", int)


@dataclass(frozen=True)
class Event:
    """An allocation of ``n_bytes``, or the end of one where ``n_bytes`` is 0."""

    block: Block
    n_bytes: int


class Tape:
    """Allocations of one stage, written down by the model of an architecture.

    Args:
        itemsize: Bytes of one number in the compute dtype.
        workspaces: Whether kernels take scratch memory as they do on an accelerator. Without it a
            tape equals what a trace on the meta device counts.
    """

    def __init__(self, itemsize: int, *, workspaces: bool = True) -> None:
        self.itemsize = itemsize
        self.events: list[Event] = []
        self.live_bytes = 0
        self.peak_bytes = 0
        self._workspaces = workspaces
        self._sizes: dict[Block, int] = {}

    def new(self, *shape: int, itemsize: int | None = None) -> Block:
        """Allocate a tensor."""
        return self._allocate(prod(shape) * (itemsize or self.itemsize))

    def free(self, *blocks: Block) -> None:
        """End tensors."""
        for block in blocks:
            self.live_bytes -= self._sizes.pop(block)
            self.events.append(Event(block, 0))

    def size(self, block: Block) -> int:
        """Bytes of a live tensor."""
        return self._sizes[block]

    def convolve(self, source: Block, *shape: int) -> Block:
        """Allocate the output of a convolution of ``source``, and for a moment its scratch.

        cuDNN's half-precision kernels work channels-last: input and output of a channels-first
        convolution are copied into a workspace of their joint size.
        """
        target = self.new(*shape)
        if self._workspaces and self.itemsize == 2:
            self.free(self._allocate(self.size(source) + self.size(target)))
        return target

    @contextmanager
    def scratch(self, *shape: int, itemsize: int | None = None) -> Iterator[None]:
        """Hold a tensor for the length of a block."""
        block = self.new(*shape, itemsize=itemsize)
        yield
        self.free(block)

    def _allocate(self, n_bytes: int) -> Block:
        block = Block(len(self.events))
        self.events.append(Event(block, n_bytes))
        self._sizes[block] = n_bytes
        self.live_bytes += n_bytes
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        return block
