from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from diffusers.hooks import apply_group_offloading
from diffusers.hooks.group_offloading import ModuleGroup

from autoquant.planner.footprint.module_shapes import shapes_of
from autoquant.planner.footprint.offload import (
    is_moved_in_blocks,
    resident_sizes,
    setting_up_bytes,
    waiting_bytes,
)
from autoquant.planner.footprint.weights import held_parts
from autoquant.search_spaces.levers import Offload
from autoquant.search_spaces.scheme import Choice


def tiny_flux() -> torch.nn.Module:
    torch.manual_seed(0)
    module: torch.nn.Module = diffusers.FluxTransformer2DModel(
        in_channels=16, num_layers=2, num_single_layers=3, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
    ).eval().requires_grad_(False).to(torch.bfloat16)  # fmt: skip
    return module


def moved_and_kept(module: torch.nn.Module) -> tuple[list[int], int]:
    """Bytes of the groups that diffusers moves, and of the one around the whole model."""
    groups: dict[int, tuple[ModuleGroup, bool]] = {}
    for part in module.modules():
        registry: Any = getattr(part, "_diffusers_hook", None)
        hook = registry and registry.get_hook("group_offloading")
        if hook:
            groups[id(hook.group)] = (hook.group, part is module)
    sizes: dict[bool, list[int]] = {True: [], False: []}
    for group, is_whole in groups.values():
        tensors = [t for m in group.modules for t in m.parameters()] + list(group.parameters)
        distinct = {id(tensor): tensor for tensor in tensors}
        sizes[is_whole].append(sum(tensor.nbytes for tensor in distinct.values()))
    return sizes[False], sum(sizes[True])


@pytest.mark.parametrize(("offload", "level"), [("group_block", "block"), ("group_leaf", "leaf")])
def test_groups_are_those_that_diffusers_moves(offload: Offload, level: str) -> None:
    module = tiny_flux()
    held = held_parts(shapes_of(module), Choice(), "bfloat16")
    apply_group_offloading(
        module, onload_device=torch.device("cpu"), offload_type=f"{level}_level",
        num_blocks_per_group=1,
    )  # fmt: skip
    moved, kept = moved_and_kept(module)
    assert sum(resident_sizes(held, offload, in_blocks=True)) == max(moved) + kept


def test_a_stream_brings_one_more_group() -> None:
    held = {"blocks.0.a.weight": (100,), "blocks.1.a.weight": (300, 9), "embed.weight": (7,)}
    assert resident_sizes(held, "group_block", in_blocks=True) == [7, 300, 9]
    assert resident_sizes(held, "group_block_stream", in_blocks=True) == [7, 100, 300, 9]
    assert resident_sizes(held, "group_block_stream", in_blocks=False) == [100, 300, 9]
    assert resident_sizes(held, "sequential", in_blocks=True) == [300, 9]
    assert sum(resident_sizes(held, "model", in_blocks=True)) == 416


def test_only_models_of_diffusers_that_do_not_decode_are_moved_in_blocks() -> None:
    assert is_moved_in_blocks("diffusers", "transformer")
    assert not is_moved_in_blocks("diffusers", "vae")
    assert not is_moved_in_blocks("transformers", "text_encoder")


def test_ram_by_mode() -> None:
    components = [{"a": (100,)}, {"b": (20, 4)}]
    assert waiting_bytes(components, "none") == waiting_bytes(components, "group_leaf_disk") == 0
    assert waiting_bytes(components, "sequential") == 124
    assert waiting_bytes(components, "group_leaf_stream") == 128 + 32 + 4


def test_blocks_are_copied_before_their_originals_go() -> None:
    components: list[tuple[dict[str, tuple[int, ...]], bool]] = [
        ({"a": (20, 4)}, False),
        ({"blocks.0.b": (100,)}, True),
    ]
    assert setting_up_bytes(components, "group_leaf") == 124
    assert setting_up_bytes(components, "group_leaf_stream") == 32 + 4 + 128
    assert setting_up_bytes(components, "group_block_stream") == 32 + 4 + 128 + 100
