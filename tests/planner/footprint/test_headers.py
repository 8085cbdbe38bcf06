from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoquant.errors import InputError
from autoquant.planner.footprint.headers import LONGEST_HEADER, read_header
from autoquant.planner.footprint.shapes import DTYPE_BITS, TensorShape
from tests.planner.footprint.pipelines import header_bytes


def read(content: bytes, size: int | None = None) -> dict[str, TensorShape]:
    return read_header(
        "x.safetensors",
        len(content) if size is None else size,
        lambda offset, length: content[offset : offset + length],
    )


def file_of(entries: Any, data_bytes: int) -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data_bytes)


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_what_safetensors_writes_is_read() -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save

    tensors = {"a.weight": torch.zeros(3, 5, dtype=torch.bfloat16), "b": torch.zeros(7)}
    found = read(save(tensors, metadata={"format": "pt"}))
    assert found == {
        "a.weight": TensorShape("BF16", (3, 5), 30),
        "b": TensorShape("F32", (7,), 28),
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "header of 0 bytes"),
        (b"\x10\0\0", "header of 0 bytes"),
        ((2**60).to_bytes(8, "little") + b"{}", f"header of {2**60} bytes"),
        ((2**64 - 1).to_bytes(8, "little") + b"{}", "announces a header"),
        (file_of(b"{}", 0)[:-1], "announces a header of 2 bytes"),
        (file_of(b"not json", 0), "is no JSON"),
        (file_of(b"[]", 0), "no JSON object"),
        (file_of(b'{"a": 1, "a": 2}', 0), "twice"),
        (file_of(b"[" * 100_000, 0), "nests without end"),
        (file_of(b"\xff\xfe{}", 0), "is no JSON"),
        (file_of({"a": 3}, 8), "unknown dtype None"),
        (file_of({"a": entry(dtype="F7")}, 8), "unknown dtype F7"),
        (file_of({"a": entry(shape=[-2])}, 8), "has the shape"),
        (file_of({"a": entry(shape=[True, 2])}, 8), "has the shape"),
        (file_of({"a": entry(shape=[2.0])}, 8), "has the shape"),
        (file_of({"a": entry(shape=[1] * 17)}, 8), "has the shape"),
        (file_of({"a": entry(shape=[2**32, 2**32])}, 8), "not the 8 bytes"),
        (file_of({"a": entry(shape=[2**64])}, 8), "has the shape"),
        (file_of({"a": entry(offsets=[8, 0])}, 8), "has the offsets"),
        (file_of({"a": entry(offsets=[0])}, 8), "has the offsets"),
        (file_of({"a": entry(offsets=[0, 2**60])}, 8), "not the"),
        (file_of({"a": entry(), "b": entry()}, 8), "overlap at byte 0"),
        (file_of({"a": entry(), "b": entry(offsets=[4, 12])}, 12), "overlap at byte 4"),
        (file_of({"a": entry(), "b": entry(offsets=[16, 24])}, 24), "leave a gap at byte 8"),
        (file_of({"a": entry(offsets=[8, 16])}, 16), "leave a gap at byte 0"),
        (file_of({"a": entry()}, 4), "describes 8 bytes of tensors, 4 are there"),
        (file_of({"a": entry(dtype="F4", shape=[3], offsets=[0, 1])}, 1), "not the 1 bytes"),
    ],
)
def test_a_header_that_lies_is_refused_in_one_line(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("[", r"\[")) as caught:
        read(content)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_the_announced_length_is_never_asked_for() -> None:
    asked: list[int] = []

    def spy(offset: int, length: int) -> bytes:
        asked.append(length)
        return (LONGEST_HEADER + 1).to_bytes(8, "little")[:length]

    with pytest.raises(InputError, match="announces a header"):
        read_header("x", 2**50, spy)
    assert max(asked) == 8


def test_a_file_that_shrinks_while_it_is_read_is_refused() -> None:
    content = file_of({"a": entry()}, 8)
    with pytest.raises(InputError, match="ends after"):
        read(content[:20], size=len(content))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_escape_as_another_error(content: bytes) -> None:
    try:
        read(content)
    except InputError:
        return


_NUMBERS = st.integers(-(2**70), 2**70) | st.floats() | st.booleans() | st.none() | st.text()
_ENTRIES = st.dictionaries(
    st.text(max_size=5),
    st.fixed_dictionaries(
        {
            "dtype": st.sampled_from([*DTYPE_BITS, "X"]) | _NUMBERS,
            "shape": st.lists(_NUMBERS, max_size=4) | _NUMBERS,
            "data_offsets": st.lists(_NUMBERS, max_size=3) | _NUMBERS,
        }
    )
    | _NUMBERS,
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(_ENTRIES, st.integers(0, 64))
def test_no_header_escapes_as_another_error(entries: dict[str, Any], data_bytes: int) -> None:
    try:
        read(file_of(entries, data_bytes))
    except InputError:
        return


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(["F32", "BF16", "U8"]), st.lists(st.integers(0, 9), max_size=3)),
        max_size=6,
    )
)
def test_every_sound_header_is_read_back(described: dict[str, tuple[str, list[int]]]) -> None:
    tensors = {
        name: TensorShape.plain(dtype, tuple(shape)) for name, (dtype, shape) in described.items()
    }
    head, data_bytes = header_bytes(tensors)
    assert read(head + bytes(data_bytes)) == tensors
