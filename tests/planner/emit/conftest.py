from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from diffusers.quantizers.bitsandbytes import bnb_quantizer

from autoquant import demo
from autoquant.planner.plan import Plan, PlannedComponent, PlannedPipeline
from autoquant.planner.source import DEMO
from autoquant.planner.workload import Workload
from tests.planner.test_plan import a_plan

PlanFor = Callable[..., Plan]


def demo_plan(**components: PlannedComponent | str) -> Plan:
    """A plan for the demo pipeline; a component is given by its scheme or in full."""
    return a_plan(
        pipeline=PlannedPipeline(class_name="FluxPipeline", source=DEMO),
        workload=Workload(
            prompts=tuple(demo.WORKLOAD["prompts"][:1]),
            height=64,
            width=64,
            steps=1,
            call_arguments={"max_sequence_length": 16},
        ),
        components={
            name: PlannedComponent(scheme=part) if isinstance(part, str) else part
            for name, part in components.items()
        },
    )


@pytest.fixture
def plan_for() -> PlanFor:
    return demo_plan


@pytest.fixture
def bitsandbytes_on_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let diffusers load bitsandbytes without a GPU, which it refuses although it would work."""

    def on_cpu(_: Any, device_map: Any) -> Any:
        return {"": "cpu"} if device_map is None else device_map

    for name in ("BnB4BitDiffusersQuantizer", "BnB8BitDiffusersQuantizer"):
        quantizer = getattr(bnb_quantizer, name)
        monkeypatch.setattr(quantizer, "validate_environment", lambda *_, **__: None)
        monkeypatch.setattr(quantizer, "update_device_map", on_cpu)
    return
