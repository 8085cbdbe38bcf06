"""The main job for real: load, quantize, draw, compare, choose, hand over."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from autoquant import InputError, Plan, WorkloadRequest, autoquant, demo
from autoquant.planner.plan import PlanFormatError
from autoquant.storage import held_bytes

GIB = 2**30
FEW = WorkloadRequest(prompts=tuple(demo.WORKLOAD["prompts"][:3]), steps=2)
TIGHT_GB = 0.006


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    out = tmp_path_factory.mktemp("plans") / "tight"
    plan = autoquant(
        "demo", vram_gb=TIGHT_GB, latency_s=60, workload=FEW, trials=6, metric="flip", out=out
    )
    return plan, out


def images(folder: Path) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(Image.open(path), dtype=int) for path in sorted(folder.glob("*.png"))]


def test_a_tight_budget_gives_a_smaller_plan_within_it(tight: tuple[Plan, Path]) -> None:
    plan, _ = tight
    assert plan.measured.peak_gb <= TIGHT_GB < plan.reference.peak_gb
    assert not plan.reference.fits
    assert any(part.scheme != "none" for part in plan.components.values())
    assert sum(point.chosen for point in plan.pareto) <= 1
    assert plan.measured.metric == "flip"
    assert plan.confirmation is not None
    assert plan.confirmation.prompts == demo.UNSEEN_PROMPTS[:3]


def test_the_unquantized_pipeline_is_among_the_candidates(tight: tuple[Plan, Path]) -> None:
    plan, _ = tight
    assert any(
        all(choice.scheme == "none" for choice in point.components.values())
        and point.measured.loss == 0
        for point in plan.pareto
    )


def test_the_plan_lists_what_was_not_loaded(tight: tuple[Plan, Path]) -> None:
    plan, _ = tight
    assert plan.search.pruned == len(plan.search.pruned_trials) > 0
    assert all(trial.bound_gb > trial.vram_gb == TIGHT_GB for trial in plan.search.pruned_trials)
    assert f"{plan.search.pruned} candidates were ruled out unmeasured" in str(plan)


def test_the_directory_holds_the_plan_the_script_and_the_images(
    tight: tuple[Plan, Path],
) -> None:
    plan, out = tight
    assert Plan.load_json(out / "plan.json") == plan
    assert len(images(out / "images" / "reference")) == len(plan.workload.samples)
    assert len(images(out / "images" / "planned")) == len(plan.workload.samples)
    assert "FluxPipeline" in (out / "report.html").read_text()
    assert "import autoquant" not in (out / "load_pipeline.py").read_text()
    assert "from autoquant" not in (out / "load_pipeline.py").read_text()


def test_the_script_alone_reproduces_the_figures_and_the_images(
    tight: tuple[Plan, Path],
) -> None:
    plan, out = tight
    without_autoquant = (
        "import sys, runpy; sys.modules['autoquant'] = None; "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", without_autoquant, "load_pipeline.py"],
        cwd=out,
        env={"PATH": "/usr/bin:/bin", "HOME": str(out), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    weights_gb = float(done.stdout.split("weights: ")[1].split(" GB")[0])
    assert weights_gb == pytest.approx(plan.measured.weights_gb, rel=0.02)
    n_images = len(plan.workload.samples)
    assert f"{n_images} drawn, {n_images} compared" in done.stdout
    difference = max(
        np.abs(ours - theirs).max()
        for ours, theirs in zip(
            images(out / "images" / "loaded"), images(out / "images" / "planned"), strict=True
        )
    )
    assert difference <= 1


def test_the_plan_loads_the_pipeline_that_it_reports(tight: tuple[Plan, Path]) -> None:
    plan, out = tight
    pipeline = Plan.load_json(out / "plan.json").load()
    modules = [c for c in pipeline.components.values() if isinstance(c, torch.nn.Module)]
    assert held_bytes(*modules) / GIB == pytest.approx(plan.measured.weights_gb, rel=1e-6)
    sample = plan.workload.samples[0]
    image = pipeline(
        sample.prompt,
        height=64,
        width=64,
        num_inference_steps=plan.workload.steps,
        generator=torch.Generator("cpu").manual_seed(sample.seed),
        **plan.workload.call_arguments,
    ).images[0]
    planned = images(out / "images" / "planned")[0]
    assert np.abs(np.asarray(image, dtype=int) - planned).max() <= 1


def test_a_pipeline_in_memory_is_planned_and_given_back_as_it_came(
    demo_pipeline: DiffusionPipeline,
) -> None:
    before = {
        name: {key: value.clone() for key, value in module.state_dict().items()}
        for name, module in demo_pipeline.components.items()
        if isinstance(module, torch.nn.Module)
    }
    plan = autoquant(
        demo_pipeline,
        vram_gb=TIGHT_GB,
        workload=FEW_IN_MEMORY,
        trials=5,
        metric="flip",
        confirm=False,
    )
    assert plan.measured.peak_gb <= TIGHT_GB
    for name, tensors in before.items():
        module = demo_pipeline.components[name]
        assert all(torch.equal(module.state_dict()[key], tensors[key]) for key in tensors)
    assert plan.load(source=demo.pipeline_directory()) is not None


FEW_IN_MEMORY = WorkloadRequest(
    prompts=FEW.prompts,
    steps=2,
    height=64,
    width=64,
    call_arguments={"max_sequence_length": demo.WORKLOAD["max_sequence_length"]},
)


def test_a_plan_for_another_pipeline_is_refused(tight: tuple[Plan, Path], tmp_path: Path) -> None:
    _, out = tight
    entries = json.loads((out / "plan.json").read_text())
    entries["pipeline"]["class"] = "StableDiffusionPipeline"
    with pytest.raises(PlanFormatError, match="holds a FluxPipeline"):
        Plan.from_json(json.dumps(entries)).load()
    entries = json.loads((out / "plan.json").read_text())
    entries["components"]["unet"] = {"scheme": "none"}
    with pytest.raises(PlanFormatError, match="names unet"):
        Plan.from_json(json.dumps(entries)).load()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pipeline": object()}, "Pass a diffusers pipeline"),
        ({"vram_gb": 0}, "vram_gb must be"),
        ({"metric": "flop"}, "flip"),
        ({"backends": ["torchoa"]}, "torchao"),
        ({"device": "cuda:99"}, "cuda"),
        ({"compute_dtype": "int8"}, "compute_dtype must be"),
        ({"workload": WorkloadRequest(call_arguments={"colour": "red"})}, "takes no colour"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: dict[str, Any], message: str, demo_pipeline: DiffusionPipeline
) -> None:
    given: dict[str, Any] = {
        "pipeline": demo_pipeline,
        "vram_gb": 1,
        "workload": FEW_IN_MEMORY,
        "trials": 1,
    }
    with pytest.raises(InputError, match=message):
        autoquant(**(given | arguments))
