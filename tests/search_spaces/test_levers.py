"""Which levers are open where, and which combinations the compatibility table forbids."""

import pytest
import torch
from diffusers import DiffusionPipeline

from autoquant import demo
from autoquant.errors import InputError
from autoquant.search_spaces.levers import (
    AskedLevers,
    LeverSpace,
    asked_levers,
    lever_conflicts,
    open_levers,
)


@pytest.fixture(scope="module")
def modules():
    pipeline = DiffusionPipeline.from_pretrained(demo.pipeline_directory(), dtype=torch.bfloat16)
    return {n: c for n, c in pipeline.components.items() if isinstance(c, torch.nn.Module)}


def opened(modules, device_type, asked=None, edge=64, batch_size=1):
    return open_levers(modules, device_type, (edge, edge), batch_size, asked or AskedLevers())


def test_memory_that_is_shared_is_not_offloaded(modules):
    space, struck = opened(modules, "mps")
    assert space.offload == ("none",)
    assert all("no memory of its own" in it.reason for it in struck if it.lever == "offload")
    with pytest.raises(InputError, match="offload model was asked for but cannot be used here"):
        opened(modules, "mps", AskedLevers(offload=("model",)))


def test_an_accelerator_offloads_and_compiles(modules):
    space, _ = opened(modules, "cuda")
    # The order in which the reference is tried where it does not fit: the least waiting first.
    assert space.offload == (
        "none",
        "model",
        "group_block_stream",
        "group_leaf_stream",
        "group_leaf",
        "sequential",
    )
    assert space.compile == ("none", "regional", "whole")


def test_a_cpu_has_nothing_to_offload_to_and_compiles_only_if_asked(modules):
    space, struck = opened(modules, "cpu")
    assert space == LeverSpace()
    reasons = {(it.lever, it.value): it.reason for it in struck}
    assert "already where" in reasons["offload", "model"]
    assert "asked" in reasons["compile", "regional"]
    space, _ = opened(modules, "cpu", AskedLevers(compile=("none", "regional")))
    assert space.compile == ("none", "regional")
    with pytest.raises(InputError, match="offload model was asked for but cannot be used here"):
        opened(modules, "cpu", AskedLevers(offload=("none", "model")))


def test_an_accelerator_without_streams_does_not_copy_ahead(modules):
    space, struck = opened(modules, "hpu")
    assert space.offload == ("none", "model", "group_leaf", "sequential")
    assert any(it.value == "group_leaf_stream" and "cuda and xpu" in it.reason for it in struck)


def test_tiles_are_tried_for_images_larger_than_one_and_slices_for_batches(modules):
    tile = modules["vae"].tile_sample_min_size
    assert opened(modules, "cuda", edge=tile)[0].vae_tiling == (False,)
    assert opened(modules, "cuda", edge=2 * tile)[0].vae_tiling == (False, True)
    assert opened(modules, "cuda")[0].vae_slicing == (False,)
    assert opened(modules, "cuda", batch_size=2)[0].vae_slicing == (False, True)


def test_what_is_asked_for_stands_instead_of_what_is_open_by_itself(modules):
    space, _ = opened(modules, "cuda", AskedLevers(offload=("model",), vae_tiling=(True,)))
    assert space.offload == ("model",)
    assert space.vae_tiling == (True,)
    assert space.compile == ("none", "regional", "whole")


def test_an_unknown_lever_or_value_is_named():
    with pytest.raises(InputError, match=r"no lever 'offlod'; there are: compute_dtype, offload"):
        asked_levers({"offlod": ["none"]})
    with pytest.raises(InputError, match=r"offload: Input should be 'none'.*got 'gpu'"):
        asked_levers({"offload": ["gpu"]})


def test_forbidden_combinations_come_from_the_table():
    found = lever_conflicts(
        {"text_encoder_2": ("none", "quanto:int8", "torchao:int8wo")},
        {"text_encoder_2": "transformers.T5EncoderModel"},
        LeverSpace(offload=("none", "model", "group_leaf", "group_leaf_disk")),
        "cuda",
        (8, 9),
    )
    assert {(it.scheme, it.value) for it in found} == {
        ("none", "group_leaf_disk"),
        ("quanto:int8", "group_leaf"),
        ("quanto:int8", "group_leaf_disk"),
        ("torchao:int8wo", "group_leaf_disk"),
    }
