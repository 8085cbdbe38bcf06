"""Whatever a file holds, it is read or refused with an error that names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.outside_data import is_read_or_refused, readers
from tests.planner.test_plan import a_plan

KINDS = (
    "plan",
    "space file",
    "prompt file",
    "model_index.json",
    "safetensors header",
    "GGUF header",
    "quantized folder",
    "compatibility table",
    "family file",
)


@pytest.mark.parametrize("kind", KINDS)
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_data_is_read_or_refused(kind: str, tmp_path: Path, data: st.DataObject) -> None:
    reader, examples = readers(tmp_path, json.loads(a_plan().to_json()))[kind]
    is_read_or_refused(reader, data.draw(examples), tmp_path)


def test_every_reader_is_named_here(tmp_path: Path) -> None:
    assert tuple(readers(tmp_path, {})) == KINDS
