from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autoquant.planner.content import KnownHashes, content_hash
from autoquant.planner.identity import Identity, identify
from autoquant.planner.request import Request
from autoquant.planner.workload import WorkloadRequest


def model(root: Path, weights: bytes = b"weights") -> Path:
    (root / "transformer").mkdir(parents=True)
    (root / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    (root / "transformer" / "model.safetensors").write_bytes(weights)
    return root


def identity(pipeline: Path, **asked: object) -> Identity:
    found = identify(Request(pipeline=str(pipeline), **asked), KnownHashes(None))
    assert found is not None
    return found


def test_equal_content_is_the_same_model_wherever_it_lies(tmp_path: Path) -> None:
    one, other = model(tmp_path / "one"), model(tmp_path / "other")
    assert identity(one) == identity(other)
    assert identity(model(tmp_path / "third", b"changed")) != identity(one)


@pytest.mark.parametrize(
    ("asked", "difference"),
    [
        ({"workload": WorkloadRequest(steps=9)}, "workload steps: nothing then, 9 now"),
        ({"metric": "ssim"}, "metric metric: auto then, ssim now"),
        ({"device": "cpu"}, "device device: nothing then, cpu now"),
        ({"backends": ("gguf",)}, 'request backends: nothing then, ["gguf"] now'),
    ],
)
def test_what_differs_is_named(tmp_path: Path, asked: dict[str, object], difference: str) -> None:
    directory = model(tmp_path)
    assert identity(directory).differences(identity(directory, **asked)) == [difference]


def test_what_changes_no_measurement_is_no_difference(tmp_path: Path) -> None:
    directory = model(tmp_path)
    assert identity(directory, download=False, revision="x") == identity(directory)


def test_a_pipeline_in_memory_has_no_identity() -> None:
    assert identify(Request(pipeline=object()), KnownHashes(None)) is None


def test_another_number_of_threads_is_another_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = model(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one = identity(directory)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert one.differences(identity(directory)) == ["device OMP_NUM_THREADS: 1 then, 2 now"]


def test_a_space_file_counts_by_its_content(tmp_path: Path) -> None:
    directory = model(tmp_path / "model")
    for name in ("one.yaml", "same.yaml", "other.yaml"):
        (tmp_path / name).write_text("a: 1" if name != "other.yaml" else "a: 2")
    one, same, other = (
        identity(directory, space_file=str(tmp_path / f"{name}.yaml"))
        for name in ("one", "same", "other")
    )
    assert one == same != other
    # What may be tried is no part of what was measured.
    assert one.key(without=("request",)) == other.key(without=("request",))
    assert one.key() != other.key()


def test_the_home_directory_is_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = model(tmp_path)
    clip = f"local-dir:{Path.home()}/clip"
    assert str(Path.home()) not in identity(directory, clip_model=clip).model_dump_json()


def test_a_hub_snapshot_is_its_commit(tmp_path: Path) -> None:
    snapshot = model(tmp_path / "snapshots" / ("0123456789" * 4))
    assert content_hash(snapshot, KnownHashes(None)) == f"commit {'0123456789' * 4}"


def test_a_large_file_is_read_once(tmp_path: Path) -> None:
    directory, index = model(tmp_path / "model"), tmp_path / "hashes.json"
    known = KnownHashes(index)
    first = content_hash(directory, known)
    known.save()
    weights = directory / "transformer" / "model.safetensors"
    times = weights.stat()
    # Same size and time of change: the file is not looked into.
    weights.write_bytes(b"WEIGHTS")
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert content_hash(directory, KnownHashes(index)) == first
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert content_hash(directory, KnownHashes(index)) != first
    index.write_text('{"cut')
    assert content_hash(directory, KnownHashes(index)) != first


def test_a_blob_of_the_hub_is_known_by_its_name(tmp_path: Path) -> None:
    blob = tmp_path / "blobs" / ("ab" * 32)
    blob.parent.mkdir()
    blob.touch()
    (tmp_path / "model.safetensors").symlink_to(blob)
    assert KnownHashes(None).of(tmp_path / "model.safetensors") == "ab" * 32


def test_telling_the_identity_needs_no_torch(tmp_path: Path) -> None:
    check = (
        "import sys; from autoquant.planner.content import KnownHashes\n"
        "from autoquant.planner.identity import identify\n"
        "from autoquant.planner.request import Request\n"
        "identify(Request(pipeline=sys.argv[1]), KnownHashes(None))\n"
        "import autoquant.planner.api\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check, str(model(tmp_path))], check=True)
