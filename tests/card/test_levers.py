"""Every lever on a card: the same image, with what it is there for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoquant.metrics.device import compute_capability
from autoquant.metrics.memory import counter_for
from autoquant.planner.building import build_pipeline
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.levers import attention_restored
from autoquant.planner.loading import DirectoryLoader
from autoquant.planner.timed_workload import Drawn, draw_workload, warm_up
from autoquant.search_spaces.backends import backend
from autoquant.search_spaces.compatibility import conflicts
from autoquant.search_spaces.levers import AskedLevers, open_levers
from autoquant.search_spaces.scheme import Choice
from tests.card.conftest import WORKLOAD, require_usable

pytestmark = pytest.mark.gpu

OFFLOADS = (
    "model",
    "sequential",
    "group_leaf",
    "group_leaf_stream",
    "group_block",
    "group_block_stream",
    "group_leaf_disk",
)
# One of each way in which a library keeps its weights.
SCHEMES = (
    "none",
    "bitsandbytes:nf4",
    "bitsandbytes:int8",
    "torchao:int8wo",
    "torchao:float8wo",
    "torchao:int4wo",
    "quanto:int8",
    "gguf:Q8_0",
    "sdnq:int8",
    "layerwise:float8_e4m3fn",
)
COMPILED = ("none", "torchao:int8wo", "torchao:float8wo", "bitsandbytes:nf4")
SAGE_HEAD_WIDTHS = (64, 96, 128)
# A step of an 8-bit image: a copy is exact, but a kernel may be chosen by where its input lies.
TOLERANCE = 1 / 255


@pytest.fixture(scope="module")
def loader(demo_directory: Path) -> DirectoryLoader:
    return DirectoryLoader(demo_directory)


def draw(loader: DirectoryLoader, card: torch.device, scheme: str = "none", **levers: Any) -> Drawn:
    candidate = Candidate(
        components={"transformer": Choice(scheme=scheme)}, runtime=Runtime(**levers)
    )
    with attention_restored():
        built = build_pipeline(loader, candidate, card)
        return draw_workload(built, warm_up(built, WORKLOAD, card), WORKLOAD, card)


def require_open(loader: DirectoryLoader, card: torch.device, **levers: Any) -> None:
    """Skip what autoquant itself would not try on the card."""
    outlines = {name: loader.outline(name) for name in loader.sizes}
    _, struck = open_levers(outlines, card.type, (64, 64), 1, AskedLevers())
    for entry in struck:
        never = "unless it is asked for" not in entry.reason
        if never and (entry.lever, entry.value) in levers.items():
            pytest.skip(entry.reason)


def require_layers(loader: DirectoryLoader, card: torch.device, scheme: str) -> None:
    """Skip what the card cannot run, or the demo's transformer is too narrow for."""
    if scheme == "none":
        return
    require_usable(scheme, card)
    name, precision = scheme.split(":")
    if not backend(name).quantizable_layers(loader.outline("transformer"), precision):
        pytest.skip("no layer of the demo is wide enough")


@pytest.mark.parametrize("offload", OFFLOADS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_scheme_draws_the_same_image_offloaded(
    card: torch.device, loader: DirectoryLoader, record_property: Any, scheme: str, offload: str
) -> None:
    require_open(loader, card, offload=offload)
    require_layers(loader, card, scheme)
    capability = compute_capability(card)
    for component in ("diffusers.FluxTransformer2DModel", "transformers.T5EncoderModel"):
        against = conflicts(
            scheme if component.startswith("diffusers") else "none",
            card.type,
            capability=capability,
            component=component,
            offload=offload,
        )
        if against:
            pytest.skip(against[0].reason)
    plain = draw(loader, card, scheme)
    offloaded = draw(loader, card, scheme, offload=offload)
    allocated = f"{card.type}.allocated"
    saved = plain.other_counters[allocated] - offloaded.other_counters[allocated]
    record_property("saves MB", saved / 2**20)
    record_property("takes times", offloaded.latency_s.median / plain.latency_s.median)
    assert saved > 0
    np.testing.assert_allclose(offloaded.images, plain.images, atol=TOLERANCE)


@pytest.mark.parametrize("compile", ["regional", "whole"])
@pytest.mark.parametrize(
    "scheme", ["none", "torchao:int8wo", "torchao:float8wo", "bitsandbytes:nf4"]
)
def test_a_compiled_pipeline_draws_the_same_image(
    card: torch.device, loader: DirectoryLoader, record_property: Any, scheme: str, compile: str
) -> None:
    require_open(loader, card, compile=compile)
    require_layers(loader, card, scheme)
    plain = draw(loader, card, scheme)
    torch.compiler.reset()
    compiled = draw(loader, card, scheme, compile=compile)
    record_property("compiles in s", compiled.compile_s)
    record_property("takes times", compiled.latency_s.median / plain.latency_s.median)
    assert compiled.compile_s > compiled.latency_s.median
    # Fused kernels round elsewhere.
    assert np.abs(compiled.images - plain.images).mean() < 0.02


@pytest.mark.parametrize("attention", ["flash", "sage", "xformers", "_native_efficient"])
def test_another_attention_kernel_draws_nearly_the_same(
    card: torch.device, loader: DirectoryLoader, record_property: Any, attention: str
) -> None:
    require_open(loader, card, attention=attention)
    head_width = loader.outline("transformer").config.attention_head_dim
    if attention == "sage" and head_width not in SAGE_HEAD_WIDTHS:
        pytest.skip(f"SageAttention takes no heads of {head_width}, as the demo has")
    plain, other = draw(loader, card), draw(loader, card, attention=attention)
    difference = float(np.abs(other.images - plain.images).mean())
    record_property("difference", difference)
    assert difference < 0.02


@torch.no_grad()
def test_tiles_save_memory_in_decoding(real_card: torch.device, record_property: Any) -> None:
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(64, 128, 256, 256),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=256,
        latent_channels=16,
    )
    vae = vae.to(real_card, torch.bfloat16).eval()
    latents = torch.randn(1, 16, 128, 128, device=real_card, dtype=torch.bfloat16)
    peaks = []
    for tile in (False, True):
        if tile:
            vae.enable_tiling()
        with counter_for(real_card).watch(vae) as reading:
            assert vae.decode(latents).sample.isfinite().all()
        peaks.append(reading.peak_bytes)
    record_property("of the peak", peaks[1] / peaks[0])
    assert peaks[1] < 0.7 * peaks[0]
