from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from autoquant.errors import InputError
from autoquant.planner.output import OutputDirectory, ResumableOutput, default_directories


def test_nothing_is_in_place_before_the_commit(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with OutputDirectory(target) as output:
        (output.partial / "plan.json").write_text("{}")
        assert not target.exists()
        output.commit()
    assert (target / "plan.json").read_text() == "{}"
    assert list(tmp_path.iterdir()) == [target]


def test_without_a_commit_nothing_is_left_behind(tmp_path: Path) -> None:
    with OutputDirectory(tmp_path / "out") as output:
        (output.partial / "plan.json").write_text("{}")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_there_stay_unless_told_otherwise(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="holds files already"):
        OutputDirectory(target)
    assert (target / "mine.txt").read_text() == "precious"
    with OutputDirectory(target, overwrite=True) as output:
        (output.partial / "plan.json").write_text("{}")
        output.commit()
    assert [file.name for file in target.iterdir()] == ["plan.json"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="is a file"):
        OutputDirectory(tmp_path / "out")


def test_a_place_that_cannot_be_written_is_named() -> None:
    with pytest.raises(InputError, match="Cannot write to /proc"):
        OutputDirectory(Path("/proc/out"))


def finish(directory: Path, *, interrupted: bool = False) -> None:
    search = {"search": {"interrupted": interrupted}}
    (directory / "plan.json").write_text(json.dumps(search))


def test_the_default_directory_is_a_new_one_or_an_unfinished_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def names() -> list[str]:
        return [path.name for path in islice(default_directories("owner/model", 16), 3)]

    parent = Path("autoquant-out")
    assert names() == ["model-16gb", "model-16gb-2", "model-16gb-3"]
    (parent / "model-16gb" / "study").mkdir(parents=True)
    assert names()[0] == "model-16gb"
    finish(parent / "model-16gb", interrupted=True)
    assert names()[0] == "model-16gb"
    finish(parent / "model-16gb")
    assert names() == ["model-16gb-2", "model-16gb-3", "model-16gb-4"]
    (parent / "model-16gb-2").mkdir()
    assert names() == ["model-16gb-3", "model-16gb-4", "model-16gb-5"]


def fill(directory: Path) -> None:
    (directory / "images").mkdir()
    (directory / "images" / "new.png").touch()
    (directory / "plan.json").write_text("new")


def test_a_plan_is_put_beside_its_study(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "old.png").touch()
    (tmp_path / "plan.json").write_text("old")
    (tmp_path / "mine.txt").touch()
    (tmp_path / ".unfinished-killed").mkdir()
    ResumableOutput(tmp_path, "study").put(fill)
    assert {path.name for path in tmp_path.iterdir()} == {
        "study",
        "images",
        "plan.json",
        "mine.txt",
    }
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["new.png"]
    ResumableOutput(tmp_path, "study", overwrite=True).put(fill)
    assert {path.name for path in tmp_path.iterdir()} == {"study", "images", "plan.json"}


def test_a_plan_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "plan.json").write_text("old")

    def fail(directory: Path) -> None:
        (directory / "images").mkdir()
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left on device"):
        ResumableOutput(tmp_path, "study").put(fail)
    assert (tmp_path / "plan.json").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"study", "plan.json"}


def test_files_that_are_no_study_stay(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(InputError, match="holds files already"):
        ResumableOutput(tmp_path, "study")
    with pytest.raises(InputError, match="is a file"):
        ResumableOutput(tmp_path / "mine.txt", "study")
