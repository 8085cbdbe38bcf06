"""Rows of the published tables that combine a scheme with a lever, on a real pipeline.

On a CPU the hooks of offload run too; what they save, and how long compiling takes, only a card can
say (``tests/card``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoquant.planner.building import build_pipeline
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.loading import DirectoryLoader
from autoquant.planner.timed_workload import Drawn, draw_workload, warm_up
from autoquant.planner.workload import Workload
from autoquant.search_spaces.compatibility import conflicts
from autoquant.search_spaces.scheme import Choice

CPU = torch.device("cpu")
DrawnWith = Callable[..., Drawn]


@pytest.fixture(scope="module")
def drawn(demo_directory: Path) -> DrawnWith:
    loader = DirectoryLoader(demo_directory)

    def draw(scheme: str, batch_size: int = 1, **levers: Any) -> Drawn:
        components = {name: Choice(scheme=scheme) for name in ("transformer", "text_encoder_2")}
        candidate = Candidate(components=components, runtime=Runtime(**levers))
        workload = Workload(
            prompts=("a red circle", "two blue squares"),
            height=64,
            width=64,
            steps=1,
            batch_size=batch_size,
            call_arguments={"max_sequence_length": 16},
        )
        built = build_pipeline(loader, candidate, CPU)
        return draw_workload(built, warm_up(built, workload, CPU), workload, CPU)

    return draw


@pytest.mark.parametrize(
    ("scheme", "offload"),
    [
        ("bitsandbytes:nf4", "model"),
        ("bitsandbytes:int8", "model"),
        ("layerwise:float8_e4m3fn", "group_leaf"),
    ],
)
def test_a_scheme_draws_the_same_offloaded(drawn: DrawnWith, scheme: str, offload: str) -> None:
    assert not conflicts(scheme, "cuda", offload=f"{offload}_stream")
    np.testing.assert_array_equal(drawn(scheme, offload=offload).images, drawn(scheme).images)


@pytest.mark.parametrize("compute_dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("scheme", ["quanto:int8", "quanto:float8"])
def test_a_scheme_computes_in_either_half_precision(
    drawn: DrawnWith, scheme: str, compute_dtype: str
) -> None:
    full = drawn("none", compute_dtype="float32").images
    images = drawn(scheme, compute_dtype=compute_dtype).images
    assert 0 < np.abs(images - full).mean() < 0.05


def test_a_batch_takes_more_memory_and_draws_the_same(drawn: DrawnWith) -> None:
    one, two = drawn("quanto:float8"), drawn("quanto:float8", batch_size=2)
    assert two.peak_bytes > one.peak_bytes
    assert np.abs(two.images - one.images).max() < 0.05
