"""A run's directory without a run: a plan written by hand, and drawn images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoquant.metrics.device import DeviceFingerprint
from autoquant.metrics.images import Images, save_png
from autoquant.metrics.latency import LatencySummary
from autoquant.metrics.score import MetricScore
from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Runtime
from autoquant.planner.candidate_images import FOLDER, folder_name, other_candidates
from autoquant.planner.measurement import Measured
from autoquant.planner.plan import (
    FailedTrial,
    ParetoPoint,
    Plan,
    PlannedComponent,
    PlannedPipeline,
    ReferenceCost,
    SearchSummary,
)
from autoquant.planner.workload import Workload
from autoquant.search_spaces.scheme import Choice
from autoquant.search_spaces.space import Struck

PROMPTS = tuple(f"{colour} bicycle" for colour in ("red", "blue", "green", "black", "white", "old"))
CHOSEN = "torchao:int8wo"
SCHEMES = {
    # scheme: loss, peak in GiB, median seconds
    "bitsandbytes:nf4": (0.12, 8.0, 5.1),
    CHOSEN: (0.02, 14.0, 4.2),
    "torchao:float8wo": (0.01, 17.0, 4.0),
    "none": (0.0, 31.0, 5.0),
}


def measured(scheme: str, n_images: int = len(PROMPTS)) -> Measured:
    loss, peak_gb, latency_s = SCHEMES[scheme]
    values = tuple(loss * (1 + index / 10) for index in range(n_images))
    return Measured(
        weights_gb=peak_gb - 2,
        component_gb={"transformer": peak_gb - 4, "text_encoder": 1.8, "vae": 0.2},
        load_peak_gb=peak_gb + 1,
        peak_gb=peak_gb,
        counter="cuda.reserved",
        latency_s=LatencySummary(
            median=latency_s, low=latency_s - 0.1, high=latency_s + 0.2, runs=6
        ),
        loss=loss,
        fidelity={"flip": scored(values), "ssim": scored([1 - value for value in values])},
        metric="flip",
        noise_floor=0.003,
        quantized_layers={"transformer": 0 if scheme == "none" else 190},
    )


def scored(values: Sequence[float]) -> MetricScore:
    return MetricScore(
        mean=sum(values) / len(values),
        low=min(values),
        high=max(values),
        worst=max(values),
        worst_index=list(values).index(max(values)),
        per_image=tuple(values),
    )


def choices(scheme: str) -> dict[str, Choice]:
    return {"transformer": Choice(scheme=scheme), "text_encoder": Choice()}


def recorded_plan(**changes: Any) -> Plan:
    prompts: tuple[str, ...] = changes.pop("prompts", PROMPTS)
    parts: dict[str, Any] = {
        "created": "2026-01-01T00:00:00Z",
        "autoquant": "0.1.0",
        "pipeline": PlannedPipeline(class_name="FluxPipeline", source="owner/model"),
        "budget": Budget.of(vram_gb=16, latency_s=4.5),
        "workload": Workload(prompts=prompts, height=64, width=96, steps=4),
        "components": {
            "transformer": PlannedComponent(
                scheme=CHOSEN, why="27.00 GB becomes 10.00 GB (190 layers quantized)"
            ),
            "text_encoder": PlannedComponent(why="stays in bfloat16: 1.80 GB"),
        },
        "runtime": Runtime(),
        "measured": measured(CHOSEN, len(prompts)),
        "reference": ReferenceCost(weights_gb=29, peak_gb=31, latency_s=5, fits=False),
        "pareto": tuple(
            ParetoPoint(
                components=choices(scheme),
                runtime=Runtime(),
                measured=measured(scheme, len(prompts)),
                chosen=scheme == CHOSEN,
                feasible=scheme == CHOSEN,
            )
            for scheme in SCHEMES
        ),
        "search": SearchSummary(
            trials=7,
            pruned=0,
            failed=1,
            seconds=95.0,
            seed=0,
            rule="least loss first",
            ties=("transformer quanto:int8",),
            notes=("lpips was not measured: no weights",),
            failures=(FailedTrial(components=choices("quanto:int4"), reason="no such kernel"),),
            struck=(
                Struck(component="vae", scheme="*", reason="mostly convolutions"),
                Struck(component="transformer", scheme="gguf:Q4_K", reason="gguf is missing"),
            ),
        ),
        "device": DeviceFingerprint(name="A card", kind="cuda", memory_gb=24.0, driver="570"),
        "versions": {"torch": "2.9.0"},
    }
    return Plan(**(parts | changes))


def pictures(n_images: int, height: int = 64, width: int = 96) -> Images:
    rng = np.random.default_rng(0)
    coarse = rng.random((n_images, height // 8, width // 8, 3), dtype=np.float32)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def write_run(directory: Path, plan: Plan | None = None, *, images: bool = True) -> Path:
    """Write what ``autoquant suggest`` would.

    The last planned image is identical to the unquantized one, the first of other candidates is.
    """
    plan = plan or recorded_plan()
    directory.mkdir(parents=True, exist_ok=True)
    plan.save(directory / "plan.json")
    (directory / "load_pipeline.py").write_text("def load_pipeline(): ...\n")
    if images:
        reference = pictures(len(plan.workload.samples))
        planned = np.clip(reference + 0.1, 0, 1)
        planned[-1] = reference[-1]
        save_png(reference, directory / "images" / "reference")
        save_png(planned, directory / "images" / "planned")
        for place, candidate in other_candidates(plan):
            drawn = np.clip(reference - 0.2 * plan.pareto[place].measured.loss - 0.02, 0, 1)
            drawn[0] = reference[0]
            save_png(drawn, directory / FOLDER / folder_name(candidate))
    return directory
