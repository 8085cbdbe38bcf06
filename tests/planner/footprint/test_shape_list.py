from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoquant.errors import InputError
from autoquant.planner.footprint.shape_list import SCHEMA, compressed, parse_shape_list
from autoquant.planner.footprint.shapes import TensorShape
from tests.planner.footprint.pipelines import MODELS


def listed(tensors: dict[str, str], **changes: Any) -> bytes:
    part = {
        "library": "diffusers",
        "class_name": "FluxTransformer2DModel",
        "origin": "a test",
        "config": {},
        "tensors": tensors,
    }
    content = {"schema": SCHEMA, "class_name": "FluxPipeline", "components": {"transformer": part}}
    return json.dumps(content | changes).encode()


_NAMES = st.from_regex(r"[a-c](\.[0-9]{1,2}){0,3}\.w", fullmatch=True)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(_NAMES, st.sampled_from([(), (3,), (2, 5)]), max_size=30))
def test_what_is_compressed_is_expanded(shapes: dict[str, tuple[int, ...]]) -> None:
    tensors = {
        name: TensorShape.plain("BF16", shape)
        for name, shape in shapes.items()
        if not any(part.startswith("0") and part != "0" for part in name.split("."))
    }
    found = parse_shape_list("x", listed(compressed(tensors)))
    assert found.components["transformer"].tensors == tensors


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no shape list"),
        (b"{}", "at "),
        (listed({}, schema="autoquant.shapes/2"), "is no shape list"),
        (listed({"a.weight": "BF16 3x"}), "a.weight"),
        (listed({"a.weight": "XF16 3"}), "unknown dtype 'XF16'"),
        (listed({"a.{0-999999}.{0-999999}.weight": "F32 1"}), "more than 200000 tensors"),
        (listed({"a": "F32 " + "9" * 40}), "a: String should match"),
    ],
)
def test_a_damaged_list_is_refused_in_one_line(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_shape_list("x.json", content)
    assert "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_escape_as_another_error(content: bytes) -> None:
    with pytest.raises(InputError):
        parse_shape_list("x.json", content)


def test_the_lists_are_small() -> None:
    assert sum(path.stat().st_size for path in MODELS.glob("*.json")) < 300_000
