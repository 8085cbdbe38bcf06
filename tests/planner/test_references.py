"""The noise floor: the reference drawn again with another attention kernel."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.backends import cuda as kernels

from autoquant.metrics.psnr import Psnr
from autoquant.planner.references import make_reference
from autoquant.planner.workload import Workload

WORKLOAD = Workload(prompts=("a red circle",), height=16, width=16, steps=1)
PICTURE = np.linspace(0.1, 0.9, 16 * 16 * 3, dtype=np.float32).reshape(1, 16, 16, 3)


class Pipeline:
    """Draws a picture of its own for each attention kernel; None is a lack of memory."""

    def __init__(self, efficient: float | None, math: float | None) -> None:
        self._efficient, self._math = efficient, math
        self.used: list[str] = []

    def __call__(self, **arguments: Any) -> Any:
        if kernels.flash_sdp_enabled():
            return SimpleNamespace(images=PICTURE)
        efficient = kernels.mem_efficient_sdp_enabled()
        self.used.append("efficient" if efficient else "math")
        shift = self._efficient if efficient else self._math
        if shift is None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 58 GiB")
        return SimpleNamespace(images=PICTURE + np.float32(shift))


@pytest.mark.parametrize(
    ("efficient", "math", "used", "floor"),
    [
        (0.01, None, ["efficient"], 0.01),  # the usual kernel is flash attention
        (0.0, 0.01, ["efficient", "math"], 0.01),  # it is the memory-efficient one
        (0.0, None, ["efficient", "math"], 0.0),  # and there is no memory for another
        (None, None, ["efficient", "math"], 0.0),
    ],
)
def test_another_kernel_is_one_that_makes_a_difference_and_fits(
    efficient: float | None, math: float | None, used: list[str], floor: float
) -> None:
    pipeline = Pipeline(efficient, math)
    made = make_reference(pipeline, WORKLOAD, {"psnr": Psnr()}, PICTURE)
    assert pipeline.used == used
    assert made.noise_floor("psnr") == pytest.approx(floor, abs=1e-5)
    assert kernels.flash_sdp_enabled()
