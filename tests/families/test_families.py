"""Every family goes through the whole generic path: open, quantize, draw, compare, choose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from autoquant import Plan, WorkloadRequest, autoquant
from autoquant.errors import UnsupportedPipeline
from autoquant.planner.budget import Budget
from autoquant.planner.evaluator import Recorder
from autoquant.planner.footprint.bound import PeakBound
from autoquant.planner.footprint.pipeline_shapes import read_directory
from autoquant.planner.loading import DirectoryLoader, ObjectLoader
from autoquant.planner.pipeline import workload_for
from autoquant.planner.preparation import prepare
from autoquant.planner.prompt_embeddings import PromptEmbeddings
from autoquant.planner.references import draw_all
from autoquant.planner.request import Request
from autoquant.planner.search import search
from autoquant.planner.search_settings import SearchSettings
from autoquant.planner.selection import choose
from tests.families import classic, modern
from tests.in_process import Script

SMALL = WorkloadRequest(prompts=("a red circle", "two blue squares"), steps=1, height=64, width=64)

# Which components are decided on; everything else is discovered and left as it is.
DECIDED: dict[Callable[[], Any], set[str]] = {
    classic.stable_diffusion: {"unet", "text_encoder"},
    classic.stable_diffusion_xl: {"unet", "text_encoder", "text_encoder_2"},
    classic.kolors: {"unet", "text_encoder"},
    classic.stable_diffusion_3: {
        "transformer",
        "text_encoder",
        "text_encoder_2",
        "text_encoder_3",
    },
    classic.flux: {"transformer", "text_encoder", "text_encoder_2"},
    classic.chroma: {"transformer", "text_encoder"},
    classic.pixart_sigma: {"transformer", "text_encoder"},
    classic.hunyuan_dit: {"transformer", "text_encoder", "text_encoder_2"},
    classic.aura_flow: {"transformer", "text_encoder"},
    modern.sana: {"transformer", "text_encoder"},
    modern.lumina_2: {"transformer", "text_encoder"},
    modern.qwen_image: {"transformer", "text_encoder"},
    modern.z_image: {"transformer", "text_encoder"},
    modern.flux_2_dev: {"transformer", "text_encoder"},
    modern.flux_2_klein: {"transformer", "text_encoder"},
    modern.wan: {"transformer", "transformer_2", "text_encoder"},
    modern.cogview_4: {"transformer", "text_encoder"},
    # Families that are named nowhere.
    modern.krea_2: {"transformer", "text_encoder"},
    modern.kandinsky_2_2: {"unet", "prior_prior", "prior_text_encoder"},
}


@pytest.mark.parametrize("make", DECIDED, ids=lambda make: make.__name__)
def test_a_family_ends_with_a_feasible_quantized_plan(
    make: Callable[[], Any], tmp_path: Path
) -> None:
    make().save_pretrained(tmp_path / "model")
    request = Request(
        pipeline=str(tmp_path / "model"), workload=SMALL, metric="flip", download=False
    )
    prepared, evaluator = prepare(request, tmp_path)
    assert set(prepared.space.components) == DECIDED[make]
    budget = Budget.of(0.999 * prepared.reference.measured.peak_gb)
    settings = SearchSettings(trials=3, confirm=False)
    result = search(Recorder(evaluator), prepared.space, budget, settings, prepared.runtime)
    assert [trial.failure for trial in result.trials] == [None] * 3
    chosen = choose(result.trials, budget).chosen
    assert not chosen.candidate.is_reference
    # int8 may stay below the noise floor, so that the loss is 0; images that are equal may not.
    assert chosen.measured.fidelity["flip"].mean > 0
    assert all(chosen.measured.quantized_layers.values())
    bound = PeakBound(read_directory(tmp_path / "model"), prepared.workload)
    reference, *others = result.trials
    for trial in others:
        least_gb = bound(trial.candidate, [reference])
        assert least_gb is not None
        assert 0.3 * trial.measured.weights_gb < least_gb <= trial.measured.peak_gb


@pytest.mark.parametrize("make", DECIDED, ids=lambda make: make.__name__)
def test_embeddings_that_are_kept_draw_the_same_images(make: Callable[[], Any]) -> None:
    pipeline = make()
    pipeline.set_progress_bar_config(disable=True)
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            component.eval()
    workload = workload_for(pipeline, SMALL)
    plain = draw_all(pipeline, workload)
    PromptEmbeddings().lend_to(pipeline, "encoders")
    for _ in range(2):
        assert np.array_equal(draw_all(pipeline, workload), plain)


def test_a_video_pipeline_draws_an_image_and_hands_it_over(
    tmp_path: Path, run_script: Script
) -> None:
    modern.wan().save_pretrained(tmp_path / "model")
    autoquant(
        tmp_path / "model",
        vram_gb=1,
        workload=SMALL,
        trials=2,
        confirm=False,
        metric="flip",
        download=False,
        backends=["layerwise"],
        out=tmp_path / "plan",
    )
    plan = Plan.load_json(tmp_path / "plan" / "plan.json")
    assert plan.workload.call_arguments["num_frames"] == 1
    assert "largest pixel difference: 0 of 255" in run_script(tmp_path / "plan/load_pipeline.py")


@pytest.mark.parametrize("make", [modern.wan, modern.kandinsky_2_2, classic.hunyuan_dit])
def test_a_pipeline_draws_with_what_it_was_assembled_from(
    make: Callable[[], Any], tmp_path: Path
) -> None:
    pipeline = make()
    pipeline.save_pretrained(tmp_path / "model")
    for loader in (DirectoryLoader(tmp_path / "model"), ObjectLoader(pipeline)):
        modules = {name: loader.load(name, torch.bfloat16) for name in loader.sizes}
        assembled = loader.assemble(modules, torch.bfloat16)
        inside = [it for it in vars(assembled).values() if isinstance(it, DiffusionPipeline)]
        drawn_with = [it for part in (assembled, *inside) for it in part.components.values()]
        held = {id(it) for it in drawn_with if isinstance(it, torch.nn.Module)}
        assert held == {id(module) for module in modules.values()}


def test_a_pipeline_that_cannot_draw_from_prompts_alone_is_refused(tmp_path: Path) -> None:
    from diffusers import FluxImg2ImgPipeline

    pipeline = FluxImg2ImgPipeline(**classic.flux().components)
    request = Request(pipeline=pipeline, workload=SMALL, metric="flip", download=False)
    with pytest.raises(UnsupportedPipeline, match="FluxImg2ImgPipeline draws nothing from"):
        prepare(request, tmp_path)


def test_sizes_are_the_ones_that_the_call_draws_by_default() -> None:
    usual = workload_for(modern.kandinsky_2_2(), WorkloadRequest())
    assert (usual.height, usual.width) == (512, 512)
    wide = workload_for(modern.wan(), WorkloadRequest())
    assert (wide.height, wide.width) == (480, 832)


def test_a_pipeline_that_draws_sizes_from_a_list_draws_the_one_asked_for(tmp_path: Path) -> None:
    modern.sana().save_pretrained(tmp_path / "model")
    request = Request(
        pipeline=str(tmp_path / "model"), workload=SMALL, metric="flip", download=False
    )
    prepared, _ = prepare(request, tmp_path)
    assert prepared.workload.call_arguments["use_resolution_binning"] is False
