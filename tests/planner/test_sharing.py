"""Several processes measure for one study, and one of them is killed."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from autoquant.errors import CandidateFailed, InputError, StudyDiffers
from autoquant.planner.budget import Budget
from autoquant.planner.cache import known_hashes
from autoquant.planner.candidate import Candidate
from autoquant.planner.identity import identify
from autoquant.planner.joining import Sharing
from autoquant.planner.measurement import Answer, Comparison
from autoquant.planner.measurement_store import Record
from autoquant.planner.optuna_storage import open_storage, without_password
from autoquant.planner.plan import Plan
from autoquant.planner.planning import plan_pipeline
from autoquant.planner.request import Request
from autoquant.planner.search_settings import SearchSettings
from autoquant.planner.shared_evaluator import SharedEvaluator
from autoquant.planner.shared_study import SharedStudy, Terms
from autoquant.planner.study_directory import StudyDirectory
from autoquant.planner.workload import Workload
from tests.planner import postgresql
from tests.planner.measurements import candidate, measured
from tests.planner.recorded_joining import PACE
from tests.planner.recorded_worker import PREPARATION, Recorded
from tests.planner.test_resuming import VRAM_GB, calls

TRIALS = 24


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param != "postgresql":
        yield f"{request.param}:///{tmp_path / 'storage'}"
        return
    reason = postgresql.missing()
    if reason is not None:
        pytest.skip(reason)
    # A socket's path is at most 107 bytes long, and the server's user must reach it.
    with tempfile.TemporaryDirectory(prefix="pg-") as place:
        Path(place).chmod(0o755)
        with postgresql.server(Path(place)) as address:
            yield address


def asked(directory: Path) -> Request:
    model = directory / "model"
    model.mkdir(exist_ok=True)
    return Request(pipeline=str(model), clip_model=str(directory))


def suggest(directory: Path, url: str) -> Plan:
    request = asked(directory)
    identity = identify(request, known_hashes(use_cache=False))
    with StudyDirectory(directory / "study", identity) as study:
        return plan_pipeline(
            request,
            Budget.of(vram_gb=VRAM_GB),
            SearchSettings(trials=TRIALS),
            study,
            sharing=Sharing(url, "shared", **PACE),
            worker="tests.planner.recorded_worker",
        ).plan


def join(url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.planner.recorded_joining", url, "shared"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def terms(directory: Path) -> Terms:
    request = asked(directory)
    identity = identify(request, known_hashes(use_cache=False))
    assert identity is not None
    return Terms(
        identity=identity,
        request=request,
        budget=Budget.of(vram_gb=VRAM_GB),
        trials=TRIALS,
        seed=0,
        preparation=PREPARATION,
    )


def test_three_processes_share_a_study_and_the_trial_of_a_killed_one_is_taken_up(
    tmp_path: Path, url: str
) -> None:
    shared = SharedStudy.create(open_storage(url), "shared", terms(tmp_path), **PACE)
    reference = candidate()
    shared.finish(None, Record(candidate=reference, answer=PREPARATION.reference))
    # It hangs for good in its first measurement, and is killed there.
    (tmp_path / "hang").touch()
    victim = join(url)
    while not calls(tmp_path):
        assert victim.poll() is None, victim.communicate()[1]
        time.sleep(0.02)
    (tmp_path / "hang").unlink()
    abandoned = calls(tmp_path)[0]
    victim.kill()
    victim.wait()
    others = [join(url), join(url)]
    plan = suggest(tmp_path, url)
    for other in others:
        assert other.wait() == 0, other.communicate()[1]
    trials = optuna.load_study(study_name="shared", storage=open_storage(url)).trials
    records = [
        Record.model_validate_json(trial.user_attrs["record"])
        for trial in trials
        if "record" in trial.user_attrs
    ]
    # Everything once, and what the dead one had begun once more.
    assert max(Counter(record.candidate.digest for record in records).values()) == 1
    measured_twice = {name for name, n in Counter(calls(tmp_path)).items() if n > 1}
    assert measured_twice <= {abandoned}
    assert abandoned in {record.candidate.digest for record in records}
    assert sum(trial.user_attrs.get("abandoned", False) for trial in trials) == 1
    assert not [trial for trial in trials if trial.state == TrialState.RUNNING]
    assert plan.measured.peak_gb <= VRAM_GB


@pytest.fixture
def journal(tmp_path: Path) -> str:
    return f"journal:///{tmp_path / 'journal'}"


def test_a_claim_is_one_process_s_alone(tmp_path: Path, journal: str) -> None:
    one = SharedStudy.create(open_storage(journal), "shared", terms(tmp_path), **PACE)
    other = SharedStudy(open_storage(journal), "shared", **PACE)
    what = candidate("fake:int8")
    claim = one.claim(what)
    assert claim is not None
    assert other.claim(what) is None
    assert list(other.under_way()) == [what]
    assert list(one.under_way()) == []
    one.finish(claim, Record(candidate=what, answer=Answer(measured=measured(), components={})))
    assert other.claim(what) is None
    found = other.record(what)
    assert found is not None
    assert found.answer is not None
    assert list(other.under_way()) == []


def test_a_worker_that_is_lost_twice_with_a_candidate_makes_it_a_failed_one(
    tmp_path: Path, journal: str
) -> None:
    pace = {"heartbeat_s": 0.1, "grace_s": 0.0}
    watching = SharedStudy.create(open_storage(journal), "shared", terms(tmp_path), **pace)
    what = candidate("fake:int8")
    for expected in ([what], []):
        dead = SharedStudy(open_storage(journal), "shared", **pace)
        assert dead.claim(what) is not None
        assert list(watching.abandoned()) == []  # seen for the first time
        time.sleep(0.01)
        assert list(watching.abandoned()) == expected
    found = watching.record(what)
    assert found is not None
    assert found.failure == "its worker was lost 2 times"


def test_a_beating_claim_is_not_given_up_and_one_that_was_is_kept_all_the_same(
    tmp_path: Path, journal: str
) -> None:
    pace = {"heartbeat_s": 0.05, "grace_s": 0.5}
    watching = SharedStudy.create(open_storage(journal), "shared", terms(tmp_path), **pace)
    slow = SharedStudy(open_storage(journal), "shared", **pace)
    what = candidate("fake:int8")
    claim = slow.claim(what)
    assert claim is not None
    with slow.beating(claim):
        for _ in range(8):
            assert list(watching.abandoned()) == []
            time.sleep(0.1)
    assert list(watching.abandoned()) == []
    time.sleep(0.6)
    assert list(watching.abandoned()) == [what]
    slow.finish(claim, Record(candidate=what, answer=Answer(measured=measured(), components={})))
    assert watching.record(what) is not None


def test_what_one_process_has_compared_another_does_not_draw(tmp_path: Path, journal: str) -> None:
    drawn: list[Candidate] = []

    class Own(Recorded):
        def compare(
            self, candidate: Candidate, workload: Workload, *, timed: bool = True
        ) -> Comparison:
            drawn.append(candidate)
            return super().compare(candidate, workload, timed=timed)

    SharedStudy.create(open_storage(journal), "shared", terms(tmp_path), **PACE)
    evaluators = [
        SharedEvaluator(
            SharedStudy(open_storage(journal), "shared", **PACE), Own(tmp_path / "calls", tmp_path)
        )
        for _ in range(2)
    ]
    few = PREPARATION.workload.model_copy(update={"steps": 2})
    what, broken = candidate("fake:int8"), candidate("fake:broken3")
    first, second = (evaluator.compare(what, few) for evaluator in evaluators)
    assert first == second
    for evaluator in evaluators:
        with pytest.raises(CandidateFailed, match="no kernel for three bits"):
            evaluator.compare(broken, few)
    assert drawn == [what, broken]
    evaluators[1].compare(what, PREPARATION.workload)
    assert len(drawn) == 3


def test_another_device_version_or_model_is_refused_with_the_difference(
    tmp_path: Path, journal: str
) -> None:
    ours = terms(tmp_path)
    shared = SharedStudy.create(open_storage(journal), "shared", ours)
    card = PREPARATION.device.model_copy(update={"name": "NVIDIA L4"})
    elsewhere = PREPARATION.model_copy(update={"device": card})
    with pytest.raises(StudyDiffers, match="device name recorded there, NVIDIA L4 here"):
        shared.require_same(ours.identity, elsewhere)
    (tmp_path / "model" / "weights.safetensors").write_bytes(b"changed")
    with pytest.raises(StudyDiffers, match="model content"):
        SharedStudy.create(open_storage(journal), "shared", terms(tmp_path))
    done = join(journal)
    _, errors = done.communicate()
    assert "StudyDiffers" in errors
    assert "model content" in errors


def test_nothing_in_a_storage_is_anything_but_json(tmp_path: Path) -> None:
    path = tmp_path / "storage"
    shared = SharedStudy.create(open_storage(f"sqlite:///{path}"), "shared", terms(tmp_path))
    claim = shared.claim(candidate("fake:int8"))
    shared.finish(claim, Record(candidate=candidate("fake:int8"), failure="no kernel"))
    with sqlite3.connect(path) as connection:
        for table in ("trial_user_attributes", "study_user_attributes"):
            rows = connection.execute(f"select value_json from {table}").fetchall()
            assert rows
            assert all(json.loads(text) is not None for (text,) in rows)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("study.db", "is no URL"),
        ("oracle8://x", "Cannot open the storage oracle8://x"),
        ("sqlite:////proc/nowhere/x", "Cannot open the storage"),
        ("grpc://nowhere", "Cannot open the storage"),
    ],
)
def test_a_storage_that_cannot_be_used_is_named(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_storage(url)


def test_a_study_that_is_not_there_or_not_ours_is_named(tmp_path: Path, journal: str) -> None:
    storage = open_storage(journal)
    with pytest.raises(InputError, match="holds no study 'shared'"):
        SharedStudy(storage, "shared")
    optuna.create_study(study_name="shared", storage=storage)
    with pytest.raises(InputError, match="not made by this version"):
        SharedStudy(storage, "shared").terms  # noqa: B018


def test_passwords_are_not_shown() -> None:
    assert without_password("postgresql://me:secret@host/x") == "postgresql://me:***@host/x"
    assert without_password("sqlite:///x") == "sqlite:///x"
    with pytest.raises(InputError, match=r"me:\*\*\*@nowhere") as error:
        open_storage("postgresql+psycopg://me:secret@nowhere.invalid/x")
    assert "secret" not in str(error.value)
