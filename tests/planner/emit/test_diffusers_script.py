"""The emitted script is run as it is, without autoquant, and compared with the plan's pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from autoquant.metrics.images import to_bytes
from autoquant.planner.checkpoint.reload import component_bytes, first_batch
from autoquant.planner.measurement import GIB
from autoquant.planner.plan import PlannedComponent
from tests.in_process import Script
from tests.planner.emit.conftest import PlanFor


def test_the_script_loads_and_draws_what_was_planned(
    plan_for: PlanFor, tmp_path: Path, run_script: Script
) -> None:
    plan = plan_for(
        transformer=PlannedComponent(
            scheme="layerwise:float8_e4m3fn", exclusions=("proj_out",), fuse_qkv=True
        ),
        text_encoder_2="bitsandbytes:nf4",
        text_encoder="torchao:int8wo",
    )
    emitted = plan.emit("diffusers", tmp_path / "out", force=True)
    assert emitted.verdict.level == "full"
    said = run_script(tmp_path / "out" / "load_pipeline.py")
    ours = plan.load(device="cpu")
    weights_gb = float(said.split("weights: ")[1].split()[0])
    assert weights_gb == round(sum(component_bytes(ours).values()) / GIB, 6)
    drawn = np.asarray(Image.open(tmp_path / "out/images/loaded/0000.png"), dtype=int)
    assert np.abs(drawn - to_bytes(first_batch(ours, plan.workload))[0]).max() <= 1
