from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from autoquant.planner.plan import Plan


def autoquant(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "autoquant", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


SHORT = ("--steps", "1", "--trials", "3", "--metric", "flip", "--no-confirm")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("suggest", "no/such/model/here", "--vram", "1"), "No model at 'no/such/model/here'"),
        (("suggest", ".", "--vram", "1"), "is no diffusers pipeline"),
        (("suggest", "demo", "--vram", "0"), "vram_gb must be a finite number above 0"),
        (("suggest", "demo", "--vram", "-3"), "vram_gb must be a finite number above 0"),
        (("suggest", "demo", "--vram", "nan"), "vram_gb must be a finite number above 0"),
        (("suggest", "demo", "--vram", "lots"), "'--vram': Input should be a valid number"),
        (("suggest", "demo"), "--vram"),
        (("suggest", "demo", "--vram", "1", "--latency", "0"), "latency_s must be"),
        (("suggest", "demo", "--vram", "1", "--steps", "0"), "steps must be a whole number"),
        (("suggest", "demo", "--vram", "1", "--prompts", "none.txt"), "Cannot read the prompts"),
        (("suggest", "demo", "--vram", "1", "--prompts", "empty.txt"), "holds no prompt"),
        (("suggest", "demo", "--vram", "1", "--metric", "flop"), "'flop' is unknown"),
        (("suggest", "demo", "--vram", "1", "--out", "/proc/nowhere"), "Cannot write to"),
        (("suggest", "demo", "--vram", "1", "--out", "taken"), "holds files already"),
        (("sugest", "demo"), "No such command"),
    ],
)
def test_wrong_input_is_one_line_and_exit_status_2(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").touch()
    done = autoquant(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.startswith("autoquant: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    left = {path.name for path in tmp_path.rglob("*")}
    assert left <= {"empty.txt", "taken", "mine.txt", "autoquant-out"}


def test_a_suggestion_is_printed_and_written(tmp_path: Path) -> None:
    done = autoquant("suggest", "demo", "--vram", "1", *SHORT, "--out", "plan", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Pareto set of 3 measured candidates, by flip" in done.stdout
    assert "Next: python plan/load_pipeline.py" in done.stdout
    assert "[3/3]" in done.stderr
    assert Plan.load_json(tmp_path / "plan" / "plan.json").search.trials == 3


def test_json_is_the_plan_alone(tmp_path: Path) -> None:
    done = autoquant("suggest", "demo", "--vram", "1", *SHORT, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["schema"] == "autoquant.plan/1"


def test_a_plan_can_be_run(tmp_path: Path) -> None:
    done = autoquant("suggest", "demo", "--vram", "1", *SHORT, "--out", "plan", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    drawn = autoquant(
        "run", "plan/plan.json", "--prompt", "a red circle", "--out", "x.png", cwd=tmp_path
    )
    assert drawn.returncode == 0, drawn.stderr
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (64, 64)


def test_a_damaged_plan_is_one_line_and_exit_status_2(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"schema": "autoquant.plan/1", "crea')
    done = autoquant("run", "plan.json", "--prompt", "a red circle", cwd=tmp_path)
    assert done.returncode == 2
    assert "may be cut short" in done.stderr
    assert done.stderr.count("\n") == 1


def test_nothing_that_fits_is_exit_status_3_without_a_plan(tmp_path: Path) -> None:
    done = autoquant("suggest", "demo", "--vram", "0.0001", *SHORT, "--out", "plan", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "the smallest found needs" in done.stderr
    assert "Traceback" not in done.stderr
    assert "What was measured is kept in plan/study" in done.stderr
    assert [path.name for path in (tmp_path / "plan").iterdir()] == ["study"]


@pytest.mark.parametrize("arguments", [("--help",), ("suggest", "--help"), ("--version",)])
def test_help_is_light(arguments: tuple[str, ...], tmp_path: Path) -> None:
    probe = (
        "import sys; sys.argv = ['autoquant', *sys.argv[1:]]\n"
        "import autoquant.cli\n"
        "try: autoquant.cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'optuna', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'loads {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_an_interrupt_leaves_the_best_plan_so_far_and_exit_status_4(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "autoquant", "suggest", "demo", "--vram", "1"]
    process = subprocess.Popen(
        [*command, "--steps", "1", "--trials", "500", "--metric", "flip", "--out", "plan"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[2/500]"):
            process.send_signal(signal.SIGINT)
            break
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 4, errors
    assert "Interrupted: the best of the" in output
    assert Plan.load_json(tmp_path / "plan" / "plan.json").search.interrupted


def test_a_killed_search_goes_on_where_it_stood(tmp_path: Path) -> None:
    arguments = ("suggest", "demo", "--vram", "1", *SHORT, "--no-cache")
    process = subprocess.Popen(
        [sys.executable, "-m", "autoquant", *arguments],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[2/3]"):
            process.kill()
            break
    process.communicate()
    study = tmp_path / "autoquant-out" / "demo-1gb" / "study"
    before = {path.name: path.stat().st_mtime_ns for path in (study / "trials").iterdir()}
    assert len(before) >= 2
    done = autoquant(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Written to autoquant-out/demo-1gb:" in done.stdout
    after = {path.name: path.stat().st_mtime_ns for path in (study / "trials").iterdir()}
    assert len(after) == 3
    assert before.items() <= after.items()
    other = autoquant(*arguments, "--out", str(study.parent), "--steps", "2", cwd=tmp_path)
    assert other.returncode == 2
    assert "holds another study: workload steps: 1 then, 2 now" in other.stderr
