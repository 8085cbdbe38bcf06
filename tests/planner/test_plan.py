from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.errors import PlanFormatError
from autoquant.metrics.device import DeviceFingerprint
from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Runtime
from autoquant.planner.plan import (
    ParetoPoint,
    Plan,
    PlannedComponent,
    PlannedPipeline,
    ReferenceCost,
    SearchSummary,
)
from autoquant.planner.workload import Workload
from tests.planner.measurements import candidate, measured


def a_plan(**changes: Any) -> Plan:
    parts: dict[str, Any] = {
        "created": "2026-01-01T00:00:00Z",
        "autoquant": "0.1.0",
        "pipeline": PlannedPipeline(class_name="FluxPipeline", source="owner/model"),
        "budget": Budget.of(vram_gb=2),
        "workload": Workload(prompts=("a cat",), height=64, width=64, steps=4),
        "components": {
            "transformer": PlannedComponent(scheme="torchao:int8wo", exclusions=("proj_out",)),
            "text_encoder": PlannedComponent(),
        },
        "runtime": Runtime(),
        "measured": measured(loss=0.01, peak_gb=1.5),
        "reference": ReferenceCost(weights_gb=2, peak_gb=3, latency_s=1, fits=False),
        "pareto": (
            ParetoPoint(
                components=candidate("torchao:int8wo").components,
                runtime=Runtime(),
                measured=measured(loss=0.01, peak_gb=1.5),
                chosen=True,
            ),
        ),
        "search": SearchSummary(trials=3, pruned=0, failed=0, seconds=1.0, seed=0),
        "device": DeviceFingerprint(name="test", kind="cpu", memory_gb=1.0, driver=None),
    }
    return Plan(**(parts | changes))


def edited(**changes: object) -> str:
    entries = json.loads(a_plan().to_json())
    entries.update(changes)
    return json.dumps(entries)


def test_a_plan_is_the_same_after_writing_and_reading(tmp_path: Path) -> None:
    path = a_plan().save(tmp_path / "plan.json")
    assert Plan.load_json(path) == a_plan()
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]


def test_the_file_has_the_schema_and_the_names_of_the_design() -> None:
    entries = json.loads(a_plan().to_json())
    assert entries["schema"] == "autoquant.plan/1"
    assert entries["pipeline"]["class"] == "FluxPipeline"
    assert entries["components"]["transformer"]["scheme"] == "torchao:int8wo"


def test_a_key_that_was_added_later_is_passed_over() -> None:
    assert Plan.from_json(edited(added_later=1)) == a_plan()


def test_a_plan_prints_as_a_table() -> None:
    text = str(a_plan())
    assert "FluxPipeline within 2.00 GB of memory" in text
    assert "torchao:int8wo (keeps proj_out)" in text
    assert "1.50 GB" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (a_plan().to_json()[:-40], "may be cut short"),
        ("", "may be cut short"),
        ("[]", "is no autoquant plan"),
        ('{"schema": "autoquant.plan/2"}', "newer than autoquant.plan/1"),
        ('{"schema": "other/1"}', "is no autoquant plan"),
        (edited(budget={"vram_gb": "lots"}), "budget.vram_gb"),
        (edited(components={"../../etc": {"scheme": "none"}}), "is no component name"),
        (edited(components={"transformer": {"scheme": "os.system"}}), "scheme"),
        (edited(components={"transformer": {"exclusions": ["../x"]}}), "is no module path"),
        (edited(pipeline={"class": "os.system('x')", "source": "x"}), "is no class name"),
    ],
)
def test_a_plan_that_cannot_be_trusted_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(PlanFormatError, match=message) as caught:
        Plan.from_json(text, name="plan.json")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanFormatError, match=r"Cannot read the plan .*missing\.json"):
        Plan.load_json(tmp_path / "missing.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner),
    max_leaves=8,
)


@given(key=st.sampled_from(sorted(json.loads(a_plan().to_json()))), value=JSON)
def test_any_edit_of_a_plan_is_read_or_refused(key: str, value: object) -> None:
    with contextlib.suppress(PlanFormatError):
        Plan.from_json(edited(**{key: value}))


@given(text=st.text(max_size=100))
def test_any_text_is_read_or_refused(text: str) -> None:
    with pytest.raises(PlanFormatError):
        Plan.from_json(text)
