"""A disk that is full, or may not be written: a clear error, and the search goes on afterwards."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.planner.recorded_search import comparable, run
from tests.planner.test_resuming import VRAM_GB, calls


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 KB, which a search fills."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def search(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.planner.recorded_search", str(directory), str(VRAM_GB)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_full_disk_is_an_error_and_the_search_goes_on_when_there_is_room(
    tmp_path: Path, small_disk: Path
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(150_000))
    done = search(small_disk)
    assert done.returncode == 1
    assert "InputError: Cannot write" in done.stderr
    assert "No space left on device" in done.stderr
    measured_before = calls(small_disk)
    finished = {path.stem for path in (small_disk / "study" / "trials").glob("*.json")}
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    done = search(small_disk)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == comparable(run(tmp_path / "undisturbed", VRAM_GB))
    assert not finished & set(calls(small_disk)[len(measured_before) :])


def test_a_file_that_may_not_grow_is_an_error_not_a_failed_candidate(tmp_path: Path) -> None:
    limited = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from tests.planner.recorded_search import run\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"run(Path(sys.argv[1]), {VRAM_GB})"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "InputError: Cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE) != (1000, 1000)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = search(tmp_path / "out")
    tmp_path.chmod(0o700)
    assert "Cannot write to" in done.stderr


def test_a_file_system_that_is_read_only_is_named(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    check = (
        "import sys; from pathlib import Path\n"
        "from autoquant.planner.study_directory import StudyDirectory\n"
        "StudyDirectory(Path(sys.argv[1]), None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", check, str(small_disk / "out" / "study")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "InputError: Cannot write to" in done.stderr
    assert "Read-only file system" in done.stderr
