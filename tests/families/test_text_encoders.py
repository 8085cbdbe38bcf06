"""Stable Diffusion 3's text encoders are chosen one by one, by what each does to the images."""

from __future__ import annotations

from pathlib import Path

import torch

from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate
from autoquant.planner.evaluator import Recorder
from autoquant.planner.preparation import prepare
from autoquant.planner.request import Request
from autoquant.planner.search import search
from autoquant.planner.search_settings import SearchSettings
from autoquant.planner.selection import choose
from autoquant.planner.workload import WorkloadRequest
from autoquant.search_spaces.scheme import Choice
from tests.families import classic

ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
SPACE = "components:\n  transformer: {schemes: [none], fuse_qkv: [false]}\n" + "".join(
    f'  {name}: {{schemes: ["quanto:int8"], exclusions: [[]], fuse_qkv: [false]}}\n'
    for name in ENCODERS
)
SMALL = WorkloadRequest(prompts=("a red circle", "two blue squares"), steps=1, height=64, width=64)


def quantized(name: str) -> Candidate:
    schemes = {part: "quanto:int8" if part == name else "none" for part in ENCODERS}
    choices = {part: Choice(scheme=scheme) for part, scheme in schemes.items()}
    return Candidate(components={"transformer": Choice(), **choices})


def test_the_one_that_breaks_is_found_by_measuring(tmp_path: Path) -> None:
    pipeline = classic.stable_diffusion_3()
    with torch.no_grad():
        # A few huge weights, as real encoders have, leave the others of their row no steps.
        for layer in pipeline.text_encoder_2.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight[:, 0] += 20.0
    pipeline.save_pretrained(tmp_path / "model")
    (tmp_path / "own.yaml").write_text(SPACE)
    request = Request(
        pipeline=str(tmp_path / "model"),
        workload=SMALL,
        metric="flip",
        download=False,
        space_file=str(tmp_path / "own.yaml"),
    )
    prepared, evaluator = prepare(request, tmp_path)
    budget = Budget.of(0.999 * prepared.reference.measured.peak_gb)
    settings = SearchSettings(trials=8)
    result = search(Recorder(evaluator), prepared.space, budget, settings, prepared.runtime)
    alone = {name: evaluator.answer(quantized(name)).measured.loss for name in ENCODERS}
    assert alone["text_encoder_2"] > 3 * max(alone["text_encoder"], alone["text_encoder_3"])
    chosen = choose(result.trials, budget).chosen.candidate.components
    assert chosen["text_encoder_2"].scheme == "none"
    assert any(chosen[name].scheme == "quanto:int8" for name in ENCODERS)
