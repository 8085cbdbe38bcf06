from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autoquant import WorkloadRequest
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.footprint.bound import PeakBound, corrected_bound_gb, optimistic_peak_gb
from autoquant.planner.footprint.module_shapes import shapes_of_pipeline
from autoquant.planner.footprint.option import Option
from autoquant.planner.footprint.pipeline_shapes import read_directory
from autoquant.planner.footprint.prediction import Predictor
from autoquant.planner.footprint.request import request_for
from autoquant.planner.footprint.searched import bound_for
from autoquant.planner.footprint.shapes import ModelShapes
from autoquant.planner.footprint.weights import component_bytes
from autoquant.planner.measurement import GIB, Trial
from autoquant.planner.parameters import unquantized
from autoquant.planner.preparation import prepare
from autoquant.planner.request import Request
from autoquant.planner.source import PipelineSource
from autoquant.planner.workload import Workload
from autoquant.search_spaces.scheme import Choice
from tests.planner import measurements

ONE = WorkloadRequest(prompts=("a red circle",), steps=1)
LARGE = Workload(prompts=("x",), height=1024, width=1024, steps=1)


def test_the_bound_lies_below_every_prediction(model: ModelShapes) -> None:
    request = request_for(model)
    workload = Workload(prompts=("x",), height=request.height, width=request.width, steps=1)
    predictor = Predictor(model, request)
    for scheme in ("none", "torchao:int8wo", "bitsandbytes:nf4"):
        choices = {name: Choice(scheme=scheme) for name in model.components if name != "vae"}
        bound = optimistic_peak_gb(model, Candidate(components=choices), workload)
        peak = predictor.predict(Option(choices)).peak
        assert bound is not None
        assert 0.75 * peak.allocated <= bound * GIB <= peak.allocated <= peak.reserved


def test_measurements_correct_the_bound() -> None:
    assert corrected_bound_gb(10.0, []) == 10.0
    assert corrected_bound_gb(10.0, [(20.0, 24.0), (12.0, 14.0)]) == pytest.approx(11.5)
    # A peak below its own bound shows that the bound is wrong by so much.
    assert corrected_bound_gb(10.0, [(20.0, 19.0), (12.0, 14.0)]) == 9.0


MEASURED = ("torchao:int8wo", "torchao:int8dq", "quanto:float8", "gguf:Q4_0", "bitsandbytes:nf4")


def test_no_bound_exceeds_a_measured_peak(tmp_path: Path) -> None:
    """Each candidate before anything was measured, after the reference, and after all others."""
    prepared, evaluator = prepare(
        Request(pipeline="demo", workload=ONE, metric="flip", download=False), tmp_path
    )
    reference = unquantized(prepared.space, prepared.runtime)
    choices = [Choice(scheme=scheme) for scheme in MEASURED] + [Choice(fuse_qkv=True)]
    candidates = [
        reference.model_copy(update={"components": {**reference.components, "transformer": choice}})
        for choice in choices
    ]
    trials = [
        Trial(number=number, candidate=candidate, measured=evaluator.answer(candidate).measured)
        for number, candidate in enumerate([reference, *candidates])
    ]
    bound, _ = bound_for("demo", prepared)
    assert bound is not None
    for trial in trials[1:]:
        assert trial.measured is not None
        others = [other for other in trials if other is not trial]
        for known in ([], trials[:1], others):
            least_gb = bound(trial.candidate, known)
            assert least_gb is not None
            assert 0.5 * trial.measured.peak_gb < least_gb <= trial.measured.peak_gb


def test_a_scheme_whose_storage_nobody_described_is_not_ruled_out(flux: ModelShapes) -> None:
    bound = PeakBound(flux, LARGE)
    theirs = Candidate(components={"transformer": Choice(scheme="theirs:int3")})
    assert bound(theirs, []) is None
    assert bound(Candidate(components={}), [measurements.trial(0, theirs)]) == pytest.approx(
        bound(Candidate(components={}), [])
    )


def test_an_offloaded_candidate_needs_its_largest_component_or_less(flux: ModelShapes) -> None:
    def bound(**settings: Any) -> float | None:
        runtime = Runtime().model_copy(update=settings)
        return optimistic_peak_gb(flux, Candidate(components={}, runtime=runtime), LARGE)

    transformer = component_bytes(flux.components["transformer"], Choice(), "bfloat16") / GIB
    weights = sum(component_bytes(c, Choice(), "bfloat16") for c in flux.components.values()) / GIB
    assert bound(offload="model") == transformer
    assert bound(offload="sequential") is None
    assert bound(offload="group") is None
    assert bound(vae_tiling=True) == bound(compile="default") == weights
    whole = bound()
    assert whole is not None
    assert whole > weights + 1


def test_measurements_under_another_runtime_say_nothing(flux: ModelShapes) -> None:
    offloaded = Candidate(components={}, runtime=Runtime().model_copy(update={"offload": "model"}))
    plain = Candidate(components={})
    bound = PeakBound(flux, LARGE)
    told = [measurements.trial(0, offloaded, peak_gb=99.0)]
    assert bound(plain, told) == bound(plain, [])
    assert bound(offloaded, told) != bound(offloaded, [])


def test_a_pipeline_in_memory_has_the_shapes_of_its_directory(
    demo_pipeline: Any, demo_directory: Path
) -> None:
    ours, saved = shapes_of_pipeline(demo_pipeline), read_directory(demo_directory)
    assert ours.class_name == saved.class_name
    choice = Choice(scheme="torchao:int8wo")
    for name, component in saved.components.items():
        for some in (Choice(), choice):
            assert component_bytes(ours.components[name], some, "bfloat16") == component_bytes(
                component, some, "bfloat16"
            )


def test_a_pipeline_whose_shapes_cannot_be_read_is_searched_without_a_bound(
    tmp_path: Path,
) -> None:
    prepared, _ = prepare(
        Request(pipeline="demo", workload=ONE, metric="flip", download=False), tmp_path
    )
    moved = prepared.model_copy(update={"source": PipelineSource(location=str(tmp_path))})
    bound, noted = bound_for(str(tmp_path), moved)
    assert bound is None
    assert "No candidate was ruled out by its predicted memory" in noted.notes[-1]
