from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoquant.errors import InputError
from autoquant.planner.measurement import Answer
from autoquant.planner.measurement_store import MeasurementStore, Record, image_hashes
from tests.planner.measurements import candidate, measured
from tests.planner.recorded_worker import PREPARATION

WHAT = candidate("fake:int8")
ANSWER = Answer(measured=measured(loss=0.25), components={})


def draw(store: MeasurementStore) -> Path:
    directory = store.image_root / WHAT.digest
    directory.mkdir(parents=True)
    (directory / "0000.png").write_bytes(b"pixels")
    return directory


def kept(store: MeasurementStore) -> Record:
    images = image_hashes(draw(store))
    record = Record(candidate=WHAT, answer=ANSWER, seconds=1.5, images=images)
    store.write(record)
    return record


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    store = MeasurementStore(tmp_path / "study")
    assert store.read(WHAT) is None
    assert kept(store) == store.read(WHAT)
    store.write_preparation("key", PREPARATION)
    assert store.read_preparation("key") == PREPARATION
    assert store.read_preparation("other key") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("0.25", "0.05", 1),
        lambda text: "",
        lambda text: "[" * 100_000,
        lambda text: "[1, 2]",
        lambda text: text.replace("sha256", "sha512", 1),
    ],
)
def test_a_damaged_record_is_none(tmp_path: Path, damage) -> None:
    store = MeasurementStore(tmp_path)
    kept(store)
    (file,) = (tmp_path / "trials").iterdir()
    file.write_text(damage(file.read_text()))
    assert store.read(WHAT) is None


def test_a_record_under_the_name_of_another_candidate_is_none(tmp_path: Path) -> None:
    store = MeasurementStore(tmp_path)
    kept(store)
    other = candidate("fake:int4")
    (file,) = (tmp_path / "trials").iterdir()
    file.rename(file.with_name(f"{other.digest}.json"))
    assert store.read(other) is None


def test_images_are_whole_or_not_there(tmp_path: Path) -> None:
    store = MeasurementStore(tmp_path)
    record = kept(store)
    assert store.holds_images(record)
    image = store.image_root / WHAT.digest / "0000.png"
    image.write_bytes(b"other pixels")
    assert not store.holds_images(record)
    image.unlink()
    assert not store.holds_images(record)
    assert not store.holds_images(record.model_copy(update={"images": {}}))


def test_a_record_goes_to_another_store_with_its_images(tmp_path: Path) -> None:
    one, other = MeasurementStore(tmp_path / "one"), MeasurementStore(tmp_path / "other")
    record = kept(one)
    other.copy(record, one)
    assert other.read(WHAT) == record
    assert other.holds_images(record)


def test_no_place_to_write_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="Cannot write"):
        MeasurementStore(tmp_path / "file").write(Record(candidate=WHAT, failure="x"))


def test_a_record_is_json_that_a_person_can_read(tmp_path: Path) -> None:
    store = MeasurementStore(tmp_path)
    kept(store)
    (file,) = (tmp_path / "trials").iterdir()
    assert json.loads(file.read_text())["content"]["answer"]["measured"]["loss"] == 0.25
