from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from autoquant.errors import InputError, StudyDiffers, StudyInUse
from autoquant.planner.identity import Identity
from autoquant.planner.measurement_store import Record
from autoquant.planner.study_directory import StudyDirectory
from tests.planner.measurements import candidate

OURS = Identity(parts={"model": {"content": "a"}, "versions": {"torch": "2.9"}})
THEIRS = Identity(parts={"model": {"content": "a"}, "versions": {"torch": "2.14"}})
RECORD = Record(candidate=candidate("fake:int8"), failure="no kernel")


def measure_something(root: Path, identity: Identity | None = OURS) -> None:
    with StudyDirectory(root, identity) as study:
        study.store.write(RECORD)


def test_what_was_measured_is_there_in_the_next_run(tmp_path: Path) -> None:
    measure_something(tmp_path / "out" / "study")
    with StudyDirectory(tmp_path / "out" / "study", OURS) as study:
        assert study.store.read(RECORD.candidate) == RECORD


def test_a_run_that_measured_nothing_leaves_nothing(tmp_path: Path) -> None:
    with StudyDirectory(tmp_path / "out" / "study", OURS):
        assert (tmp_path / "out" / "study").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_files_beside_an_empty_study_stay(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with StudyDirectory(tmp_path / "study", OURS):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_second_run_is_told_that_the_directory_is_in_use(tmp_path: Path) -> None:
    second = (
        "import sys; from pathlib import Path\n"
        "from autoquant.planner.study_directory import StudyDirectory\n"
        "from tests.planner.test_study_directory import OURS\n"
        "StudyDirectory(Path(sys.argv[1]), OURS, fresh=True)"
    )
    with StudyDirectory(tmp_path / "study", OURS) as study:
        study.store.write(RECORD)
        done = subprocess.run(
            [sys.executable, "-c", second, str(tmp_path / "study")],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "StudyInUse: Another run is measuring in" in done.stderr
        with pytest.raises(StudyInUse, match="choose another --out"):
            StudyDirectory(tmp_path / "study", OURS)
        assert study.store.read(RECORD.candidate) == RECORD


def test_the_study_of_something_else_is_refused_with_the_difference(tmp_path: Path) -> None:
    measure_something(tmp_path / "study")
    with pytest.raises(StudyDiffers, match=r"versions torch: 2\.9 then, 2\.14 now"):
        StudyDirectory(tmp_path / "study", THEIRS)
    with pytest.raises(StudyDiffers, match="in memory"):
        StudyDirectory(tmp_path / "study", None)
    measure_something(tmp_path / "memory", None)
    with pytest.raises(StudyDiffers, match="in memory"):
        StudyDirectory(tmp_path / "memory", None)


@pytest.mark.parametrize("how", [{"fresh": True}, {"overwrite": True}])
def test_a_fresh_start_forgets_it(tmp_path: Path, how: dict[str, bool]) -> None:
    measure_something(tmp_path / "study")
    with StudyDirectory(tmp_path / "study", THEIRS, **how) as study:
        assert study.store.read(RECORD.candidate) is None
        study.store.write(RECORD)
    measure_something(tmp_path / "study", THEIRS)


def test_overwriting_the_plan_keeps_what_was_measured_of_the_same(tmp_path: Path) -> None:
    measure_something(tmp_path / "study")
    with StudyDirectory(tmp_path / "study", OURS, overwrite=True) as study:
        assert study.store.read(RECORD.candidate) == RECORD


def test_a_study_of_nobody_knows_what_is_an_error(tmp_path: Path) -> None:
    measure_something(tmp_path / "study")
    path = tmp_path / "study" / "identity.json"
    path.write_text(path.read_text()[:30])
    with pytest.raises(InputError, match=r"identity\.json is damaged.*--fresh"):
        StudyDirectory(tmp_path / "study", OURS)
    with StudyDirectory(tmp_path / "study", OURS, fresh=True):
        pass


def test_a_place_that_cannot_be_written_is_named() -> None:
    with pytest.raises(InputError, match="Cannot write to /proc/out/study"):
        StudyDirectory(Path("/proc/out/study"), OURS)
