from __future__ import annotations

import base64
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autoquant import cli
from autoquant.errors import InputError, PlanFormatError
from autoquant.planner.candidate_images import FOLDER
from autoquant.planner.plan import SearchSummary
from autoquant.planner.report import pictures, write_report
from autoquant.planner.report.difference import BRIGHTEST, difference_map, paint, position
from autoquant.planner.report.evidence import read_evidence
from tests.planner.report.recorded_run import pictures as drawn
from tests.planner.report.recorded_run import recorded_plan, write_run


def html_of(directory: Path) -> str:
    return write_report(directory).read_text(encoding="utf-8")


def test_the_report_lies_beside_the_plan_or_where_it_is_wanted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert write_report(run) == run / "report.html"
    out = tmp_path / "new" / "mine.html"
    assert write_report(run, out) == out
    assert out.read_bytes() == (run / "report.html").read_bytes()


def test_the_report_is_one_small_file_that_refers_to_nothing(tmp_path: Path) -> None:
    html = html_of(write_run(tmp_path))
    assert len(html) < 300_000
    links = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert links
    assert all(link.startswith(("data:image/", "#")) for link in links)
    assert "url(" not in html.replace("url(#flip-colours)", "")


def test_every_value_is_escaped(tmp_path: Path) -> None:
    attack = '"><script>alert(1)</script>\u2028&'
    search = SearchSummary(trials=1, pruned=0, failed=0, seconds=1, seed=0, notes=(attack,))
    plan = recorded_plan(prompts=(attack, "a cat"), search=search, versions={attack: attack})
    html = html_of(write_run(tmp_path, plan))
    assert "alert(1)" in html
    assert html.count("<script") == 1
    assert "<script>alert" not in html


def test_no_home_directory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    search = SearchSummary(
        trials=1, pruned=0, failed=0, seconds=1, seed=0, notes=("no /home/ada/.cache/x.pth",)
    )
    html = html_of(write_run(tmp_path, recorded_plan(search=search)))
    assert "/home/ada" not in html
    assert "no ~/.cache/x.pth" in html


def test_embedded_images_are_exactly_the_measured_ones(tmp_path: Path) -> None:
    evidence = read_evidence(write_run(tmp_path))
    gallery = pictures.make_gallery(evidence)
    assert gallery.quality == "lossless"
    for picture in gallery.pictures:
        embedded = _decoded(picture.reference, tmp_path)
        stored = np.asarray(Image.open(picture.pair.reference))
        assert np.array_equal(embedded, stored)
    assert [picture.identical for picture in gallery.pictures] == [False] * 5 + [True]


def test_many_large_images_are_embedded_with_loss_and_the_report_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "LOSSLESS_BYTES", 1)
    html = html_of(write_run(tmp_path))
    assert "data:image/webp" in html
    assert "embedded as WebP with slight loss" in html


def test_a_missing_or_damaged_image_is_named_and_the_others_are_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (run / "images" / "planned" / "0001.png").unlink()
    (run / "images" / "reference" / "0002.png").write_bytes(b"no image")
    html = html_of(run)
    assert "images/planned/0001.png" in html
    assert "Cannot read the image" in html
    assert html.count('class="pair small"') == 4


def test_identical_images_leave_nothing_to_ask(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    for name in ("0000", "0001", "0002", "0003", "0004"):
        reference = (run / "images" / "reference" / f"{name}.png").read_bytes()
        (run / "images" / "planned" / f"{name}.png").write_bytes(reference)
    shutil.rmtree(run / FOLDER)
    html = html_of(run)
    assert 'id="blind-test"' not in html
    assert html.count("· identical") == 6


def test_one_prompt_is_enough(tmp_path: Path) -> None:
    html = html_of(write_run(tmp_path, recorded_plan(prompts=("a cat",))))
    assert "1 prompt × 1 seed," in html


def test_a_study_with_many_candidates_folds_its_table(tmp_path: Path) -> None:
    plan = recorded_plan()
    few = html_of(write_run(tmp_path / "few", plan, images=False))
    many = recorded_plan(pareto=plan.pareto * 4)
    folded = html_of(write_run(tmp_path / "many", many, images=False))
    assert "<details open>" in few
    assert "<details open>" not in folded
    assert "All 16 as a table" in folded


def test_the_difference_map_is_dark_where_images_agree() -> None:
    reference = drawn(1)[0]
    planned = reference.copy()
    planned[:, :48] = 1 - planned[:, :48]
    error = difference_map(reference, planned)
    assert error.shape == reference.shape[:2]
    assert error[:, :40].mean() > 10 * error[:, 72:].mean()
    painted = np.asarray(
        paint(np.array([[0.0, 0.02, 0.1, BRIGHTEST, 1.0]], np.float32)).convert("L")
    )
    assert list(painted[0]) == sorted(painted[0])
    assert painted[0, 0] < 3
    assert painted[0, 3] == painted[0, 4]
    assert (position(0), position(BRIGHTEST), position(9)) == (0.0, 1.0, 1.0)


def edited(**changes: Any) -> str:
    return json.dumps(json.loads(recorded_plan().to_json()) | changes)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (None, r"holds no plan\.json; pass a directory that 'autoquant suggest' wrote"),
        ("{", "may be cut short"),
        (edited(components=3), "components"),
        (
            edited(reference={"weights_gb": 1, "peak_gb": -1, "latency_s": 1, "fits": True}),
            "peak_gb is -1",
        ),
        (edited().replace('"peak_gb": 14.0', '"peak_gb": 1e300'), r"peak_gb is 1e\+300"),
    ],
)
def test_a_directory_without_a_usable_plan_is_refused(
    plan: str | None, message: str, tmp_path: Path
) -> None:
    if plan is not None:
        (tmp_path / "plan.json").write_text(plan)
    with pytest.raises((InputError, PlanFormatError), match=message) as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def status_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["autoquant", "report", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "No directory nowhere"),
        (("empty",), "empty holds no plan.json"),
        (("run", "--out", "/proc/report.html"), "Cannot write /proc/report.html"),
        (("run", "--out", "empty"), "empty is there and is no HTML file"),
        (("run", "--out", "run/plan.json"), "plan.json is there and is no HTML file"),
    ],
)
def test_wrong_input_is_one_line_and_exit_status_2(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "run", images=False)
    monkeypatch.chdir(tmp_path)
    assert status_of(monkeypatch, *arguments) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_the_command_names_the_file_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run", images=False)
    monkeypatch.chdir(tmp_path)
    assert status_of(monkeypatch, "run") == 0
    assert capsys.readouterr().out == "Written to run/report.html; open it in a browser.\n"


def _decoded(uri: str, directory: Path) -> Any:
    path = directory / "embedded"
    path.write_bytes(base64.b64decode(uri.partition(",")[2]))
    return np.asarray(Image.open(path).convert("RGB"))
