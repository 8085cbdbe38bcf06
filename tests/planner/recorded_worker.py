"""A worker that draws nothing: it answers from a rule, in a process of its own as the real one.

It is told what to do by the request's ``clip_model``: a directory with a file ``calls`` to which
every candidate that it measures is appended.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from autoquant.errors import CandidateFailed, InputError
from autoquant.metrics.device import DeviceFingerprint
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.health import Health
from autoquant.planner.measurement import Answer, Comparison
from autoquant.planner.parameters import unquantized
from autoquant.planner.phases import announce
from autoquant.planner.racing import Race
from autoquant.planner.request import Preparation, Request
from autoquant.planner.source import PipelineSource
from autoquant.planner.worker import Prepared, serve_standard_streams
from autoquant.planner.workload import Workload
from autoquant.search_spaces.space import ComponentSpace, SearchSpace
from tests.planner.measurements import measured

BITS = {"none": 16, "fake:int8": 8, "fake:int6": 6, "fake:int4": 4, "fake:broken3": 3}
SPACE = SearchSpace(
    components={
        name: ComponentSpace(schemes=tuple(BITS), exclusions=((), ("proj_out",)))
        for name in ("transformer", "text_encoder")
    }
)
PREPARATION = Preparation(
    source=PipelineSource(location="<in memory>"),
    class_name="FluxPipeline",
    runtime=Runtime(),
    workload=Workload(prompts=("a",), height=64, width=64, steps=1),
    space=SPACE,
    reference=Answer(measured=measured(peak_gb=5.0), components={}),
    device=DeviceFingerprint(name="recorded", kind="cpu", memory_gb=1.0),
    versions={},
    notes=(),
)


def rule(candidate: Candidate) -> Answer:
    """Memory and loss add up; one precision fails."""
    peak = loss = 0.0
    for weight, choice in zip((4.0, 1.0), candidate.components.values(), strict=True):
        if choice.scheme == "fake:broken3":
            raise CandidateFailed("no kernel for three bits")
        share = BITS[choice.scheme] / 16
        peak += weight * share + 0.1 * len(choice.exclusions)
        loss += weight * (1 - share) ** 3 * (0.5 if choice.exclusions else 1.0)
    return Answer(measured=measured(loss=loss, peak_gb=peak), components={})


class Recorded:
    def __init__(self, calls: Path, image_root: Path) -> None:
        self._calls = calls
        self._image_root = image_root

    def answer(self, candidate: Candidate, race: Race | None = None) -> Answer:
        with self._calls.open("a") as file:
            file.write(f"{candidate.digest}\n")
        announce("load")
        time.sleep(0.01)
        while self._calls.with_name("hang").exists():
            time.sleep(0.01)
        kill = self._calls.with_name(f"kill-{candidate.digest}")
        if kill.exists():
            if kill.read_text() == "once":
                kill.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if self._calls.with_name(f"bug-{candidate.digest}").exists():
            raise KeyError("no such kernel")
        announce("draw")
        answer = rule(candidate)
        self.draw(candidate)
        return answer

    def compare(
        self, candidate: Candidate, workload: Workload, *, timed: bool = True
    ) -> Comparison:
        with self._calls.open("a") as file:
            file.write(f"{candidate.digest}-{workload.steps}\n")
        answer = rule(candidate).measured
        return Comparison(
            component_gb=answer.component_gb,
            loss=answer.loss,
            fidelity=answer.fidelity,
            metric=answer.metric,
            noise_floor=0.0,
        )

    def health(self) -> Health:
        path = self._calls.with_name("health.json")
        return Health.model_validate_json(path.read_text()) if path.exists() else Health(held_gb=0)

    def draw(self, candidate: Candidate) -> None:
        directory = self._image_root / candidate.digest
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "0000.png").write_bytes(candidate.key.encode())


def prepare(request: Request, image_root: Path) -> Prepared:
    wrong = Path(request.clip_model) / "wrong"
    if wrong.exists():
        raise InputError(wrong.read_text())
    evaluator = Recorded(Path(request.clip_model) / "calls", image_root)
    evaluator.draw(unquantized(SPACE, Runtime()))
    source = PipelineSource(location=str(request.pipeline))
    return PREPARATION.model_copy(update={"source": source}), evaluator, evaluator.health


if __name__ == "__main__":
    serve_standard_streams(prepare)
