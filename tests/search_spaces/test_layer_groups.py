from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from autoquant.planner.drawing import draw
from autoquant.planner.pipeline import workload_for
from autoquant.planner.workload import WorkloadRequest
from autoquant.search_spaces.layer_groups import (
    LayerGroup,
    layer_groups,
    smallest_exclusions,
    watch_calls,
)
from autoquant.search_spaces.linears import plain_linears
from tests.families import classic, modern


def groups_of(make: Callable[[], Any], component: str) -> tuple[Any, dict[str, LayerGroup]]:
    pipeline = make()
    pipeline.set_progress_bar_config(disable=True)
    request = WorkloadRequest(prompts=("a red circle",), steps=1, height=64, width=64)
    workload = workload_for(pipeline, request)
    module = getattr(pipeline, component)
    with watch_calls({component: module}) as calls:
        draw(pipeline, workload, workload.samples)
    assert not any(layer._forward_pre_hooks for layer in module.modules())
    schemes = ("none", "layerwise:float8_e4m3fn")
    return module, {g.name: g for g in layer_groups(module, calls[component], schemes)}


def exclusions(module: torch.nn.Module, group: LayerGroup) -> tuple[str, ...]:
    return smallest_exclusions(group.layers, list(plain_linears(module)))


def test_a_flux_transformer_divides_into_what_its_authors_call_so() -> None:
    module, groups = groups_of(classic.flux, "transformer")
    assert list(groups) == [
        "embedders",
        "modulation",
        "attention",
        "feed-forward",
        "final projection",
    ]
    assert exclusions(module, groups["final projection"]) == ("proj_out",)
    assert exclusions(module, groups["embedders"]) == (
        "context_embedder",
        "time_text_embed",
        "x_embedder",
    )
    assert "transformer_blocks.0.norm1" in exclusions(module, groups["modulation"])
    assert "single_transformer_blocks.0.proj_mlp" in groups["feed-forward"].layers


def test_blocks_are_early_or_late_by_when_they_run_and_not_by_when_they_were_made() -> None:
    # A UNet makes its middle block last.
    _, groups = groups_of(classic.stable_diffusion, "unet")
    middle = groups["attention, middle blocks"].layers
    assert all(path.startswith("mid_block") for path in middle)
    assert all(p.startswith("up_blocks") for p in groups["feed-forward, late blocks"].layers)


def test_what_never_runs_is_a_group_of_its_own() -> None:
    module, groups = groups_of(modern.qwen_image, "text_encoder")
    assert exclusions(module, groups["not called"]) == ("model.visual",)


@pytest.mark.parametrize(
    ("make", "component"),
    [
        (classic.pixart_sigma, "transformer"),
        (classic.hunyuan_dit, "transformer"),
        (modern.lumina_2, "transformer"),
        (modern.z_image, "transformer"),
        (modern.z_image, "text_encoder"),
    ],
)
def test_every_quantizable_layer_is_in_one_group(make: Callable[[], Any], component: str) -> None:
    module, groups = groups_of(make, component)
    members = [path for group in groups.values() for path in group.layers]
    assert sorted(members) == sorted(plain_linears(module))
    assert len(groups) <= 10
    total = sum(layer.weight.numel() for layer in plain_linears(module).values())
    assert sum(group.weights for group in groups.values()) == total
    assert all(group.schemes == ("layerwise:float8_e4m3fn",) for group in groups.values())


def test_exclusions_are_the_outermost_modules_that_cover_no_other_layer() -> None:
    layers = ["a.0.q", "a.0.k", "a.1.q", "a.1.k", "b.linear", "c"]
    assert smallest_exclusions(["a.0.q", "a.0.k", "b.linear"], layers) == ("a.0", "b")
    assert smallest_exclusions(["a.0.q", "a.1.q"], layers) == ("a.0.q", "a.1.q")
    assert smallest_exclusions(layers, layers) == ("a", "b", "c")
    assert smallest_exclusions([], layers) == ()
