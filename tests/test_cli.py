"""The command line: real processes where a process is the point, else ``main()`` in this one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from autoquant.planner.plan import Plan
from tests.in_process import Command, Done


def process(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "autoquant", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, which the tests may be, hands on that Ctrl-C is ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Arguments of a search that measures little; what one measured the next has in the cache."""
    prompts = tmp_path_factory.mktemp("prompts") / "two.txt"
    prompts.write_text("a red circle left of a blue square\na large green triangle\n")
    return ("--prompts", str(prompts), "--steps", "1", "--metric", "flip", "--no-confirm")


@pytest.fixture(scope="module")
def suggested(
    short: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Done]:
    """A plan from a process of its own, and what that printed."""
    place = tmp_path_factory.mktemp("suggested")
    suggest = process(
        *("suggest", "demo", "--vram", "1", "--trials", "3", "--out", "plan", *short), cwd=place
    )
    output, errors = suggest.communicate()
    return place / "plan", Done(suggest.returncode, output, errors)


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
        (("run", "cut.json", "--prompt", "a red circle"), "may be cut short"),
    ],
)
def test_wrong_input_is_one_line_and_exit_status_2(
    arguments: tuple[str, ...], message: str, autoquant_command: Command, tmp_path: Path
) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "cut.json").write_text('{"schema": "autoquant.plan/1", "crea')
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").touch()
    done = autoquant_command(*arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.startswith("autoquant: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    left = {path.name for path in tmp_path.rglob("*")}
    assert left <= {"empty.txt", "cut.json", "taken", "mine.txt", "autoquant-out"}


def test_wrong_input_is_one_line_and_exit_status_2_of_the_process(tmp_path: Path) -> None:
    wrong = process("suggest", "demo", "--vram", "1", "--metric", "flop", cwd=tmp_path)
    output, errors = wrong.communicate()
    assert (wrong.returncode, output) == (2, "")
    assert errors.startswith("autoquant: Metric 'flop' is unknown")
    assert errors.count("\n") == 1


def test_a_suggestion_is_printed_and_written(suggested: tuple[Path, Done]) -> None:
    plan, done = suggested
    assert done.returncode == 0, done.stderr
    assert "Pareto set of 3 measured candidates, by flip" in done.stdout
    assert "Next: python plan/load_pipeline.py" in done.stdout
    assert "[3/3]" in done.stderr
    made = Plan.load_json(plan / "plan.json")
    assert made.search.trials == 3
    assert made.reference.fits
    assert made.measured.loss < 0.02


def test_json_is_the_plan_alone(
    suggested: tuple[Path, Done], short: tuple[str, ...], autoquant_command: Command
) -> None:
    del suggested  # its measurements are in the cache
    done = autoquant_command("suggest", "demo", "--vram", "1", "--trials", "3", *short, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["schema"] == "autoquant.plan/1"


def test_a_plan_can_be_run(
    suggested: tuple[Path, Done], autoquant_command: Command, tmp_path: Path
) -> None:
    plan, _ = suggested
    drawn = autoquant_command(
        "run", str(plan / "plan.json"), "--prompt", "a red circle", "--out", "x.png"
    )
    assert drawn.returncode == 0, drawn.stderr
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (64, 64)


def test_nothing_that_fits_is_exit_status_3_without_a_plan(
    short: tuple[str, ...], autoquant_command: Command, tmp_path: Path
) -> None:
    done = autoquant_command(
        *("suggest", "demo", "--vram", "0.0001", "--trials", "3", "--out", "plan", *short)
    )
    assert done.returncode == 3, done.stderr
    said = done.stderr.splitlines()[-1]
    assert said.startswith("autoquant: Nothing that was measured keeps")
    for part in (
        "would be enough for",
        "the smallest found needs",
        "were ruled out unmeasured: the smallest",
        "What was measured is kept in plan/study",
    ):
        assert part in said
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


def test_an_interrupt_leaves_the_best_plan_so_far_and_exit_status_4(
    suggested: tuple[Path, Done], short: tuple[str, ...], tmp_path: Path
) -> None:
    del suggested  # three candidates are in the cache; the fourth is measured when Ctrl-C comes
    suggest = process(
        *("suggest", "demo", "--vram", "1", "--trials", "500", "--out", "plan", *short),
        cwd=tmp_path,
    )
    assert suggest.stderr is not None
    for line in suggest.stderr:
        if line.startswith("[3/500]"):
            suggest.send_signal(signal.SIGINT)
            break
    output, errors = suggest.communicate(timeout=120)
    assert suggest.returncode == 4, errors
    assert "Interrupted: the best of the" in output
    assert Plan.load_json(tmp_path / "plan" / "plan.json").search.interrupted


def test_a_killed_search_goes_on_where_it_stood(
    suggested: tuple[Path, Done], short: tuple[str, ...], autoquant_command: Command, tmp_path: Path
) -> None:
    del suggested  # three candidates are in the cache; the fourth has to be measured
    arguments = ("suggest", "demo", "--vram", "1", "--trials", "4", *short)
    killed = process(*arguments, cwd=tmp_path)
    assert killed.stderr is not None
    for line in killed.stderr:
        if line.startswith("[3/4]"):
            killed.kill()
            break
    killed.communicate()
    study = tmp_path / "autoquant-out" / "demo-1gb" / "study"
    before = {path.name: path.stat().st_mtime_ns for path in (study / "trials").iterdir()}
    assert len(before) == 3
    done = autoquant_command(*arguments)
    assert done.returncode == 0, done.stderr
    assert "Written to autoquant-out/demo-1gb:" in done.stdout
    after = {path.name: path.stat().st_mtime_ns for path in (study / "trials").iterdir()}
    assert len(after) == 4
    assert before.items() <= after.items()
    other = autoquant_command(*arguments, "--out", str(study.parent), "--seeds", "2")
    assert other.returncode == 2
    assert "holds another study: workload seeds: 1 then, 2 now" in other.stderr
