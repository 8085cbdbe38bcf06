from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from autoquant.planner.footprint.allocator import CachingAllocator, reserved_for
from autoquant.planner.footprint.tape import Tape

MIB = 2**20


def test_segments_are_those_of_pytorch() -> None:
    assert reserved_for([1]) == 2 * MIB
    assert reserved_for([MIB, MIB]) == 2 * MIB
    assert reserved_for([MIB + 1]) == 20 * MIB
    assert reserved_for([9 * MIB, 9 * MIB]) == 20 * MIB
    assert reserved_for([9 * MIB, 9 * MIB, 9 * MIB]) == 40 * MIB
    assert reserved_for([10 * MIB]) == 10 * MIB
    assert reserved_for([11 * MIB]) == 12 * MIB
    assert reserved_for([]) == 0


def test_freed_blocks_are_reused_and_joined() -> None:
    tape = Tape(1)
    first, second = tape.new(30 * MIB), tape.new(30 * MIB)
    tape.free(first, second)
    tape.free(tape.new(30 * MIB))
    allocator = CachingAllocator()
    allocator.play(tape.events)
    assert allocator.reserved_bytes == 60 * MIB


def test_a_larger_request_needs_a_new_segment() -> None:
    tape = Tape(1)
    tape.free(tape.new(30 * MIB))
    tape.free(tape.new(32 * MIB))
    allocator = CachingAllocator()
    allocator.play(tape.events)
    assert allocator.reserved_bytes == 62 * MIB
    assert tape.peak_bytes == 32 * MIB


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 40 * MIB), max_size=40), st.randoms(use_true_random=False))
def test_what_is_reserved_covers_what_is_alive(sizes: list[int], order: object) -> None:
    tape = Tape(1)
    alive = []
    for index, size in enumerate(sizes):
        alive.append(tape.new(size))
        if index % 3 == 2:
            order.shuffle(alive)  # type: ignore[attr-defined]
            tape.free(alive.pop())
    allocator = CachingAllocator()
    allocator.play(tape.events)
    assert allocator.reserved_bytes >= tape.peak_bytes
    before = allocator.reserved_bytes
    tape = Tape(1)
    for _ in range(2):
        allocator.play(tape.events)
    assert allocator.reserved_bytes == before
