"""The package of examples/extending, installed, and used as anybody would."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import subprocess
import sys
import tomllib
from argparse import ArgumentParser
from pathlib import Path

import pytest
from diffusers.commands.run import RunCommand

from autoquant.planner.candidate import Runtime
from autoquant.planner.emit.base import Emitter
from autoquant.planner.emit.layout import read_layout
from autoquant.planner.emit.registry import emitters
from autoquant.planner.plan import Plan
from tests.in_process import Script
from tests.planner.emit.conftest import demo_plan

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "extending"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the package is installed: what pip would write, without pip."""
    site = tmp_path_factory.mktemp("site")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    metadata = site / f"autoquant_example-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (metadata / "entry_points.txt").write_text("\n".join(groups))
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, EXAMPLE, site)))}


@pytest.fixture(scope="module")
def run(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that needs the package's space file, backend and metric."""
    out = tmp_path_factory.mktemp("out") / "run"
    prompts = out.parent / "prompts.txt"
    prompts.write_text("a red circle left of a blue square\na large red triangle\n")
    autoquant(
        *("suggest", "demo", "--vram", "0.0085", "--trials", "4", "--prompts", prompts),
        *("--steps", "2", "--no-confirm"),
        *("--space", EXAMPLE / "space.yaml", "--backend", "rowwise", "--metric", "edges"),
        *("--out", out),
        environment=environment,
    )
    return out


def autoquant(*arguments: object, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "autoquant", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_search_uses_all_of_them(run: Path) -> None:
    plan = Plan.load_json(run / "plan.json")
    assert plan.measured.metric == "edges"
    assert "edges" in plan.measured.metric_identity
    schemes = {name: part.scheme for name, part in plan.components.items()}
    assert schemes["transformer"] == "rowwise:int8"
    assert schemes["text_encoder"] == "none"
    assert plan.measured.weights_gb < 0.7 * plan.reference.weights_gb
    assert plan.measured.loss < 0.05


def test_the_loader_script_needs_neither_autoquant_nor_the_package(
    run: Path, run_script: Script
) -> None:
    script = (run / "load_pipeline.py").read_text()
    assert "autoquant_example" not in script
    said = run_script(run / "load_pipeline.py")
    largest = int(said.split("largest pixel difference: ")[1].split()[0])
    assert largest <= 1


def test_the_target_is_listed(environment: dict[str, str]) -> None:
    listed = json.loads(autoquant("emit", "--list", "--json", environment=environment))
    assert {entry["target"] for entry in listed} == {*emitters(), "diffusers-cli"}


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Emitter:
    monkeypatch.syspath_prepend(EXAMPLE)
    found: Emitter = importlib.import_module("autoquant_example.diffusers_cli").DiffusersCli()
    return found


def test_the_target_refuses_what_it_cannot_carry(target: Emitter) -> None:
    plan = demo_plan(transformer="bitsandbytes:nf4")
    verdict = target.carries(plan, read_layout(plan))
    assert "no option that quantizes transformer" in str(verdict.impossible)


def test_its_command_is_one_that_diffusers_cli_reads(target: Emitter) -> None:
    runtime = Runtime(offload="model", vae_tiling=True, compile="regional")
    plan = demo_plan(transformer="none").model_copy(update={"runtime": runtime})
    layout = read_layout(plan)
    [loss] = target.carries(plan, layout).lost
    [script] = target.files(plan, layout).values()
    assert loss in script
    parser = ArgumentParser()
    RunCommand.register_subcommand(parser.add_subparsers())
    read = parser.parse_args(shlex.split(script, comments=True)[1:])
    assert read.cpu_offload == "model"
    assert read.vae_tiling
    assert json.loads(read.pipeline_kwargs)["prompt"] == plan.workload.prompts[0]
