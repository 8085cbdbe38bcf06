from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoquant.errors import InputError
from autoquant.planner.footprint.gguf_header import _TYPES, read_gguf_header
from autoquant.planner.footprint.shapes import TensorShape
from autoquant.planner.footprint.storage_formats import GGUF_BLOCKS

gguf = pytest.importorskip("gguf")
np = pytest.importorskip("numpy")


def read(content: bytes) -> dict[str, TensorShape]:
    return read_gguf_header(
        "x.gguf", len(content), lambda offset, length: content[offset : offset + length]
    )


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file that the gguf package wrote, with metadata of every kind."""
    path: Path = tmp_path_factory.mktemp("gguf") / "x.gguf"
    writer = gguf.GGUFWriter(str(path), arch="flux")
    writer.add_string("general.name", "tiny")
    writer.add_uint32("a.uint32", 7)
    writer.add_float64("a.float64", 0.5)
    writer.add_bool("a.bool", True)
    writer.add_array("a.words", ["one", "two", ""])
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_tensor("plain", np.zeros((3, 5), dtype=np.float32))
    packed = gguf.quants.quantize(
        np.ones((4, 64), dtype=np.float32), gguf.GGMLQuantizationType.Q4_0
    )
    writer.add_tensor("packed", packed, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def test_what_the_gguf_package_writes_is_read(content: bytes) -> None:
    assert read(content) == {
        "plain": TensorShape("F32", (3, 5), 60),
        "packed": TensorShape("Q4_0", (4, 64), 4 * 64 // 32 * 18),
    }


def test_types_and_blocks_are_those_of_the_gguf_package() -> None:
    for number, name in _TYPES.items():
        kind = gguf.GGMLQuantizationType(number)
        assert kind.name == name
        assert gguf.GGML_QUANT_SIZES[kind] == GGUF_BLOCKS[name]


def at(content: bytes, position: int, replacement: bytes) -> bytes:
    return content[:position] + replacement + content[position + len(replacement) :]


@pytest.mark.parametrize(
    ("position", "replacement", "message"),
    [
        (0, b"GGML", "does not begin with GGUF"),
        (4, b"\x09", "version 9"),
        (8, (2**60).to_bytes(8, "little"), "announces"),
        (16, (2**60).to_bytes(8, "little"), "announces"),
        (24, (2**60).to_bytes(8, "little"), "a name of"),
    ],
)
def test_a_header_that_lies_is_refused(
    content: bytes, position: int, replacement: bytes, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(at(content, position, replacement))


def test_tensors_beyond_the_end_are_refused(content: bytes) -> None:
    with pytest.raises(InputError, match="tensors end at byte"):
        read(content[:-100])


def test_a_dimension_of_2_60_is_refused(content: bytes) -> None:
    place = content.index(b"plain") + len(b"plain") + 4
    with pytest.raises(InputError, match="of the shape"):
        read(at(content, place, (2**60).to_bytes(8, "little")))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_damage_escapes_as_another_error(content: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(content) - 1))
    replacement = data.draw(st.binary(min_size=1, max_size=12))
    cut = data.draw(st.integers(0, len(content)))
    for damaged in (at(content, position, replacement), content[:cut]):
        try:
            read(damaged)
        except InputError:
            continue


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_escape_as_another_error(rest: bytes) -> None:
    with pytest.raises(InputError):
        read(b"GGUF\x03\0\0\0" + b"\x01\0\0\0\0\0\0\0" + rest)
