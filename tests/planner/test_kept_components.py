"""Two real candidates of the demo pipeline that begin with the same component."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CLIPTextModel, T5EncoderModel

from autoquant.errors import CandidateFailed
from autoquant.metrics.memory import held_bytes_on
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.device_evaluator import DeviceEvaluator
from autoquant.planner.loading import DirectoryLoader
from autoquant.planner.preparation import prepare
from autoquant.planner.request import Request
from autoquant.planner.workload import WorkloadRequest
from autoquant.search_spaces.scheme import Choice

ENCODER = Choice(scheme="torchao:int8wo")


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory: pytest.TempPathFactory) -> DeviceEvaluator:
    workload = WorkloadRequest(prompts=("a red circle", "two blue squares"), steps=1)
    request = Request(pipeline="demo", metric="flip", download=False, workload=workload)
    return prepare(request, tmp_path_factory.mktemp("images"))[1]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    real = DirectoryLoader.load

    def noted(self: DirectoryLoader, name: str, dtype: torch.dtype) -> torch.nn.Module:
        names.append(name)
        return real(self, name, dtype)

    monkeypatch.setattr(DirectoryLoader, "load", noted)
    return names


def a_candidate(transformer: str, encoder: Choice | None = None, **levers: Any) -> Candidate:
    components = {"transformer": Choice(scheme=transformer), "text_encoder": encoder or Choice()}
    return Candidate(components=components, runtime=Runtime(**levers))


@pytest.mark.parametrize(
    "scheme",
    [
        *("bitsandbytes:nf4", "bitsandbytes:int8", "torchao:int8wo", "torchao:int8dq"),
        *("quanto:int4", "gguf:Q4_0", "sdnq:int6", "layerwise:float8_e4m3fn"),
    ],
)
def test_what_was_built_before_measures_the_same(
    evaluator: DeviceEvaluator, loaded: list[str], scheme: str
) -> None:
    evaluator.answer(a_candidate(scheme))
    assert loaded[0] == "transformer"
    loaded.clear()
    both = a_candidate(scheme, ENCODER)
    kept = evaluator.answer(both).measured
    assert "transformer" not in loaded
    assert "text_encoder" in loaded
    evaluator._kept.drop()
    new = evaluator.answer(both).measured
    apart = {"latency_s", "ram_gb"}
    assert kept.model_dump(exclude=apart) == new.model_dump(exclude=apart)


@pytest.mark.parametrize("lever", [{"offload": "model"}, {"vae_tiling": True}])
def test_what_a_lever_has_touched_is_loaded_again(
    evaluator: DeviceEvaluator, loaded: list[str], lever: dict[str, Any]
) -> None:
    evaluator.answer(a_candidate("torchao:int8wo"))
    for candidate in (a_candidate("torchao:int8wo", **lever), a_candidate("torchao:int8wo")):
        loaded.clear()
        evaluator.answer(candidate)
        assert "transformer" in loaded


def test_nothing_stays_of_a_candidate_that_failed(
    evaluator: DeviceEvaluator, loaded: list[str]
) -> None:
    evaluator.answer(a_candidate("torchao:int8wo"))
    assert evaluator.kept_bytes > 0
    with pytest.raises(CandidateFailed):
        evaluator.answer(a_candidate("torchao:int8wo", Choice(scheme="torchao:float8dq")))
    assert evaluator.kept_bytes == 0


def test_what_is_kept_is_all_that_is_kept(evaluator: DeviceEvaluator) -> None:
    evaluator._kept.drop()
    before = held_bytes_on(torch.device("cpu"))
    evaluator.answer(a_candidate("quanto:int4"))
    assert held_bytes_on(torch.device("cpu")) - evaluator.kept_bytes <= 1.02 * before
    evaluator.answer(a_candidate("torchao:int8wo"))
    assert held_bytes_on(torch.device("cpu")) - evaluator.kept_bytes <= 1.02 * before


def test_a_comparison_loads_only_what_is_new(evaluator: DeviceEvaluator, loaded: list[str]) -> None:
    workload = evaluator._workload
    plain, other = a_candidate("torchao:int8wo"), a_candidate("quanto:int4")
    evaluator.compare(plain, workload)
    loaded.clear()
    again = evaluator.compare(other, workload, timed=False)
    assert loaded == ["transformer"]
    assert again.seconds == ()
    evaluator._kept.drop()
    new = evaluator.compare(other, workload)
    assert len(new.seconds) == 1
    assert again == new.model_copy(update={"seconds": ()})


def test_a_measurement_takes_nothing_whose_peaks_were_not_counted(
    evaluator: DeviceEvaluator, loaded: list[str]
) -> None:
    what = a_candidate("torchao:int8wo")
    evaluator.compare(what, evaluator._workload)
    loaded.clear()
    after = evaluator.answer(what).measured
    assert loaded[0] == "transformer"
    evaluator._kept.drop()
    apart = {"latency_s", "ram_gb"}
    new = evaluator.answer(what).measured
    assert after.model_dump(exclude=apart) == new.model_dump(exclude=apart)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The classes of the text encoders, each time one is run."""
    names: list[str] = []
    for encoder in (CLIPTextModel, T5EncoderModel):
        real = encoder.forward

        def noted(self: Any, *arguments: Any, _real: Any = real, **named: Any) -> Any:
            names.append(type(self).__name__)
            return _real(self, *arguments, **named)

        monkeypatch.setattr(encoder, "forward", noted)
    return names


def test_text_is_encoded_once_by_the_same_encoders(
    evaluator: DeviceEvaluator, encoded: list[str]
) -> None:
    workload = evaluator._workload
    prompts = len(workload.prompts)
    evaluator.answer(a_candidate("torchao:int8wo"))
    encoded.clear()
    for scheme in ("quanto:int8", "quanto:int4"):
        evaluator.compare(a_candidate(scheme), workload, timed=False)
    assert len(encoded) == 2 * prompts  # by two encoders
    evaluator.compare(a_candidate("quanto:int4", ENCODER), workload, timed=False)
    assert len(encoded) == 4 * prompts
    evaluator.compare(a_candidate("quanto:int4", ENCODER), workload)
    assert len(encoded) == 6 * prompts


def test_no_embeddings_lie_beside_what_is_measured_or_stay_after_a_failure(
    evaluator: DeviceEvaluator,
) -> None:
    workload = evaluator._workload
    evaluator.compare(a_candidate("quanto:int8"), workload, timed=False)
    assert evaluator._embeddings.held_bytes > 0
    evaluator.answer(a_candidate("quanto:int8"))
    assert evaluator._embeddings.held_bytes == 0
    evaluator.compare(a_candidate("quanto:int8"), workload, timed=False)
    with pytest.raises(CandidateFailed):
        evaluator.compare(a_candidate("quanto:int8", Choice(scheme="torchao:float8dq")), workload)
    assert evaluator.kept_bytes == 0
