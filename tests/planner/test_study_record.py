from __future__ import annotations

import threading
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.measurement import Trial
from autoquant.planner.search_result import SearchResult
from autoquant.planner.study_record import write_study
from autoquant.search_spaces.scheme import Choice, Override
from tests.planner.report.recorded_run import choices, measured

BUDGET = Budget.of(vram_gb=16)
KEPT = tuple(f"blocks.{number}.norm" for number in range(5))


CUT = {"stopped": "its images lose more", "undrawn_images": 3}


def a_trial(number: int, scheme: str, offload: str = "none", **changes: object) -> Trial:
    runtime = Runtime.model_validate({"offload": offload})
    candidate = Candidate(components=choices(scheme), runtime=runtime)
    return Trial(number=number, candidate=candidate, **changes)


def a_search() -> SearchResult:
    kept = {**choices("torchao:int8wo")}
    kept["transformer"] = Choice(scheme="torchao:int8wo", exclusions=KEPT)
    return SearchResult(
        trials=(
            a_trial(0, "none", measured=measured("none")),
            a_trial(1, "torchao:int8wo", measured=measured("torchao:int8wo")),
            a_trial(2, "none", "model", measured=measured("torchao:float8wo")),
            a_trial(3, "quanto:int4", failure="no such kernel"),
            Trial(number=4, candidate=Candidate(components=kept), measured=measured("none")),
            a_trial(
                5, "quanto:int2", measured=measured("bitsandbytes:nf4", 3).model_copy(update=CUT)
            ),
        ),
        pruned=(a_trial(6, "sdnq:int8", bound_gb=17.5),),
        seconds=1.0,
        interrupted=False,
    )


def test_layers_in_another_precision_are_a_parameter(tmp_path: Path) -> None:
    override = Override(scheme="torchao:int8wo", layers=KEPT)
    mixed = {"transformer": Choice(scheme="torchao:float8wo", overrides=(override,))}
    plain = {"transformer": Choice(scheme="torchao:float8wo")}
    trials = [
        Trial(number=n, candidate=Candidate(components=it), measured=measured("torchao:int8wo"))
        for n, it in enumerate((plain, mixed))
    ]
    result = SearchResult(trials=tuple(trials), seconds=1.0, interrupted=False)
    path = tmp_path / "optuna.log"
    write_study(result, BUDGET, "FluxPipeline", "flip", path)
    [name] = optuna.get_all_study_names(JournalStorage(JournalFileBackend(str(path))))
    study = optuna.load_study(
        study_name=name, storage=JournalStorage(JournalFileBackend(str(path)))
    )
    assert [trial.params for trial in study.trials] == [
        {"transformer.overrides": "none"},
        {
            "transformer.overrides": "torchao:int8wo: blocks.0.norm, blocks.1.norm, blocks.2.norm "
            "and 2 more"
        },
    ]


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    path = tmp_path / "optuna.log"
    for _ in range(2):  # what is there is replaced, not added to
        write_study(a_search(), BUDGET, "FluxPipeline", "flip", path)
    assert [each.name for each in tmp_path.iterdir()] == ["optuna.log"]
    return optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend(str(path))))


def test_the_study_is_called_by_what_was_searched(study: optuna.Study) -> None:
    assert study.study_name == "FluxPipeline within 16.00 GB of memory"
    assert study.metric_names == ["flip loss"]
    assert study.best_trial.number == 1  # the best of those that keep the budget


def test_parameters_are_named_as_in_a_plan(study: optuna.Study) -> None:
    usual, offloaded, kept = (study.trials[number] for number in (1, 2, 4))
    assert usual.params == {
        "transformer.scheme": "torchao:int8wo",
        "transformer.exclusions": "none",
        "pipeline.offload": "none",
    }
    assert offloaded.params["pipeline.offload"] == "model"
    assert kept.params["transformer.exclusions"].endswith("blocks.2.norm and 2 more")


def test_every_trial_says_what_became_of_it(study: optuna.Study) -> None:
    states = [trial.state for trial in study.trials]
    assert states == [
        *(TrialState.COMPLETE, TrialState.COMPLETE, TrialState.COMPLETE),
        *(TrialState.FAIL, TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED),
    ]
    assert study.trials[1].user_attrs["candidate"] == "transformer torchao:int8wo"
    assert study.trials[1].user_attrs["peak_gb"] == 14.0
    assert study.trials[3].user_attrs["failure"] == "no such kernel"
    assert study.trials[5].user_attrs["stopped"] == "its images lose more"
    assert study.trials[5].intermediate_values == pytest.approx({0: 0.12, 1: 0.132, 2: 0.144})
    assert study.trials[6].user_attrs["peak_gb is at least"] == 17.5


def test_limits_are_constraints(study: optuna.Study) -> None:
    assert study.trials[0].constraints["vram_gb"] == 15.0
    assert study.trials[1].constraints["vram_gb"] == -2.0


def test_optuna_dashboard_shows_it_by_name(study: optuna.Study, chromium: Any) -> None:
    dashboard = pytest.importorskip(
        "optuna_dashboard", reason="needs optuna-dashboard: pip install -e '.[browser]'"
    )
    server = make_server(
        "127.0.0.1", 0, dashboard.wsgi(study._storage), ThreadingServer, handler_class=Quiet
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = chromium.new_page()
    try:
        page.goto(f"http://127.0.0.1:{server.server_port}/dashboard/studies/0")
        page.get_by_text("FluxPipeline within 16.00 GB of memory").first.wait_for()
        page.get_by_text("least loss within the budget").wait_for()
        for name in ("flip loss", "transformer.scheme", "pipeline.offload", "Infeasible"):
            page.get_by_text(name).first.wait_for()
        page.goto(f"http://127.0.0.1:{server.server_port}/dashboard/studies/0/trials?numbers=1")
        page.get_by_text("transformer torchao:int8wo").first.wait_for()
        page.get_by_text("peak_gb").first.wait_for()
    finally:
        page.close()
        server.shutdown()


class ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None: ...
