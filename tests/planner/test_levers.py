"""Levers on a real pipeline: on a CPU offload's hooks run too, and must not change a pixel."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoquant.errors import InputError
from autoquant.planner import preparation
from autoquant.planner.building import build_pipeline
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.levers import attention_restored, set_attention
from autoquant.planner.loading import DirectoryLoader
from autoquant.planner.preparation import first_that_fits, reference_runtimes
from autoquant.planner.timed_workload import Drawn, draw_workload, warm_up
from autoquant.planner.workload import Workload
from autoquant.search_spaces.levers import LeverSpace
from autoquant.search_spaces.scheme import Choice

CPU = torch.device("cpu")
WORKLOAD = Workload(
    prompts=("a red circle",),
    height=64,
    width=64,
    steps=2,
    call_arguments={"max_sequence_length": 16},
)
INT8 = {"transformer": Choice(scheme="torchao:int8wo")}


def measured_workload(loader: DirectoryLoader, what: Candidate, device: torch.device) -> Drawn:
    built = build_pipeline(loader, what, device)
    return draw_workload(built, warm_up(built, WORKLOAD, device), WORKLOAD, device)


@pytest.fixture(scope="module")
def draw(demo_directory: Path) -> Callable[..., Any]:
    loader = DirectoryLoader(demo_directory)

    def drawn(**levers: Any) -> Any:
        candidate = Candidate(components=INT8, runtime=Runtime(**levers))
        return measured_workload(loader, candidate, CPU)

    return drawn


@pytest.mark.parametrize("offload", ["model", "group_block", "group_leaf"])
def test_an_offloaded_pipeline_draws_the_same_image(draw: Callable[..., Any], offload: str) -> None:
    np.testing.assert_array_equal(draw(offload=offload).images, draw().images)


def test_the_model_offload_hooks_are_there(demo_directory: Path) -> None:
    offloaded = Candidate(components={}, runtime=Runtime(offload="model"))
    pipeline = build_pipeline(DirectoryLoader(demo_directory), offloaded, CPU).pipeline
    assert all(
        hasattr(part, "_hf_hook")
        for part in pipeline.components.values()
        if isinstance(part, torch.nn.Module)
    )


def test_tiles_and_slices_are_set_on_the_vae(demo_directory: Path) -> None:
    pulled = Candidate(components={}, runtime=Runtime(vae_tiling=True, vae_slicing=True))
    vae = build_pipeline(DirectoryLoader(demo_directory), pulled, CPU).pipeline.vae
    assert vae.use_tiling
    assert vae.use_slicing


def test_another_attention_kernel_is_used_and_forgotten(demo_directory: Path) -> None:
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry as Registry

    plain = Candidate(components={}, runtime=Runtime())
    pipeline = build_pipeline(DirectoryLoader(demo_directory), plain, CPU).pipeline
    before = Registry.get_active_backend()[0]
    with attention_restored():
        set_attention(pipeline, "_native_math")
        processors = pipeline.transformer.attn_processors.values()
        assert {processor._attention_backend for processor in processors} == {"_native_math"}
    assert Registry.get_active_backend()[0] == before


def test_the_reference_is_measured_in_the_first_runtime_that_fits() -> None:
    tried = []

    def measure(runtime: Runtime) -> str:
        tried.append(runtime.offload)
        if runtime.offload != "group_leaf_stream":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "measured"

    levers = LeverSpace(offload=("none", "model", "group_leaf_stream", "sequential"))
    measured, runtime, notes = first_that_fits(reference_runtimes(levers), measure, CPU)
    assert measured == "measured"
    assert tried == ["none", "model", "group_leaf_stream"]
    assert runtime.offload == "group_leaf_stream"
    assert "group leaf stream offload" in notes[0]


@pytest.mark.parametrize(
    "said", ["CUDA error: CUBLAS_STATUS_ALLOC_FAILED", "MPS backend out of memory (allocated 9 GB)"]
)
def test_memory_also_ends_in_other_words(said: str) -> None:
    def measure(runtime: Runtime) -> str:
        if runtime.offload == "none":
            raise RuntimeError(said)
        return "measured"

    levers = LeverSpace(offload=("none", "model"))
    assert first_that_fits(reference_runtimes(levers), measure, CPU)[1].offload == "model"


def test_another_error_is_no_lack_of_memory() -> None:
    def measure(runtime: Runtime) -> str:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        first_that_fits(reference_runtimes(LeverSpace()), measure, CPU)


def test_what_did_not_fit_is_let_go_before_the_next_runtime_is_tried() -> None:
    failed: list[weakref.ref[torch.Tensor]] = []

    def measure(runtime: Runtime) -> str:
        assert not any(tensor() is not None for tensor in failed)
        loaded = torch.empty(8)
        failed.append(weakref.ref(loaded))
        if runtime.offload == "none":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "measured"

    def release(device: torch.device) -> None:
        assert failed[0]() is None

    levers = LeverSpace(offload=("none", "model"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "release_memory", release)
        first_that_fits(reference_runtimes(levers), measure, CPU)


@pytest.mark.parametrize(
    ("capability", "dtype", "is_told"),
    [
        ((7, 5), "bfloat16", True),
        ((7, 5), "float16", False),
        ((8, 0), "bfloat16", False),
        (None, "bfloat16", False),
    ],
)
def test_a_card_that_imitates_bfloat16_is_told_of(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] | None, dtype: str, is_told: bool
) -> None:
    monkeypatch.setattr(preparation, "compute_capability", lambda device: capability)
    notes = preparation._device_notes(torch.device("cuda:0"), dtype)
    assert any("--dtype float16" in note for note in notes) == is_told


def test_a_reference_that_fits_nowhere_is_an_error_that_says_what_was_tried() -> None:
    def measure(runtime: Runtime) -> str:
        raise torch.OutOfMemoryError("CUDA out of memory")

    levers = LeverSpace(offload=("none", "model"))
    with pytest.raises(InputError, match="with no offload, model offload"):
        first_that_fits(reference_runtimes(levers), measure, CPU)
