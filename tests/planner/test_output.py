from __future__ import annotations

from pathlib import Path

import pytest

from autoquant.errors import InputError
from autoquant.planner.output import OutputDirectory, default_directory


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


def test_the_default_directory_is_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = default_directory("owner/model", 16)
    assert first == Path("autoquant-out/model-16gb")
    first.mkdir(parents=True)
    assert default_directory("owner/model", 16) == Path("autoquant-out/model-16gb-2")
