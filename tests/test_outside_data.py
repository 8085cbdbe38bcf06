"""Whatever a file holds, it is read or refused with an error that names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoquant.planner.plan import PlannedComponent
from autoquant.search_spaces.scheme import Override
from tests.outside_data import is_read_or_refused, readers
from tests.planner.test_plan import a_plan

MIXED = PlannedComponent(
    scheme="torchao:int8wo",
    exclusions=("proj_out",),
    overrides=(Override(scheme="torchao:int8dq", layers=("blocks.0", "blocks.1.ff")),),
)
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
    plan = a_plan(components={"transformer": MIXED})
    reader, examples = readers(tmp_path, json.loads(plan.to_json()))[kind]
    is_read_or_refused(reader, data.draw(examples), tmp_path)


def test_every_reader_is_named_here(tmp_path: Path) -> None:
    assert tuple(readers(tmp_path, {})) == KINDS
