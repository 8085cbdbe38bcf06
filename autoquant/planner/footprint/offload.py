"""What lies on the accelerator and in RAM under each way to offload.

The rules are those of diffusers 0.42 hooks/group_offloading.py, of accelerate's hooks, and of
planner/levers.py, which sets them up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from autoquant.search_spaces.levers import Offload

Sizes = Mapping[str, tuple[int, ...]]
"""Bytes of each tensor of a component, by name; a quantized weight is followed by its scales."""

# A list of blocks at the top level of a model: `transformer_blocks.0.attn.to_q.weight`.
_BLOCK = re.compile(r"(\w+\.\d+)\.")
_DIFFUSERS = "diffusers"


def resident_sizes(held: Sizes, offload: Offload, *, in_blocks: bool) -> list[int]:
    """Bytes of the tensors of one component that lie on the accelerator while it runs.

    Whole components under ``none`` and ``model``. Else the largest group, and the next largest
    where a stream brings it ahead; what is outside the blocks stays for as long as the model runs.

    Args:
        held: The component's tensors.
        offload: Where the weights wait.
        in_blocks: Whether the component is moved in blocks under ``group_block``: a model of
            diffusers that is entered through its forward. Others are moved layer by layer.
    """
    if offload in {"none", "model"}:
        return [size for parts in held.values() for size in parts]
    by_block = offload.startswith("group_block") and in_blocks
    groups: dict[str, list[int]] = {}
    for name, parts in held.items():
        block = _BLOCK.match(name)
        layer = name.rpartition(".")[0]
        key = (block.group(1) if block else "") if by_block else layer
        groups.setdefault(key, []).extend(parts)
    always = groups.pop("", []) if by_block else []
    ahead = 2 if "stream" in offload else 1
    largest = sorted(groups.values(), key=sum)[-ahead:]
    return [*always, *(size for group in largest for size in group)]


def is_moved_in_blocks(library: str, name: str) -> bool:
    """Whether group offload by blocks takes the component called ``name`` block by block."""
    return library == _DIFFUSERS and "vae" not in name


def waiting_bytes(components: Sequence[Sizes], offload: Offload) -> int:
    """RAM that waiting weights take while the pipeline runs."""
    if offload == "none" or "disk" in offload:
        return 0
    return sum(map(_copied, components)) if "stream" in offload else sum(map(_plain, components))


def setting_up_bytes(components: Sequence[tuple[Sizes, bool]], offload: Offload) -> int:
    """Most RAM while offload is set up, one component after another.

    A stream's copies are made for all blocks of a component before the originals are given up, and
    for layers one at a time; files are written group by group.

    Args:
        components: The tensors of each, and whether it is moved in blocks.
        offload: Where the weights wait.
    """
    originals = [_plain(held) for held, _ in components]
    if "stream" not in offload or "disk" in offload:
        return sum(originals)
    most = copied = 0
    for place, (held, in_blocks) in enumerate(components):
        copied += _copied(held)
        doubled = offload.startswith("group_block") and in_blocks
        most = max(most, copied + sum(originals[place if doubled else place + 1 :]))
    return most


def _plain(sizes: Sizes) -> int:
    return sum(sum(parts) for parts in sizes.values())


def _copied(sizes: Sizes) -> int:
    """Pinned memory comes in powers of two (aten/src/ATen/core/CachingHostAllocator.h)."""
    return sum(_power_of_two(size) for parts in sizes.values() for size in _positive(parts))


def _positive(parts: Iterable[int]) -> Iterable[int]:
    return (size for size in parts if size > 0)


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()
