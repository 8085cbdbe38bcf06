"""Carry out a plan: load its pipeline with the planned choices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autoquant.errors import PlanFormatError
from autoquant.metrics.device import resolve_device
from autoquant.planner.building import build_pipeline
from autoquant.planner.checkpoints import require_stored_weights
from autoquant.planner.levers import compile_denoisers
from autoquant.planner.loading import ComponentLoader, loader_for
from autoquant.planner.loras import by_component
from autoquant.planner.plan import Plan
from autoquant.planner.source import find_source, local_directory


def load_planned(
    plan: Plan,
    source: str | Path | None = None,
    device: str | None = None,
    *,
    trust_remote_code: bool = False,
) -> Any:
    """Load the pipeline of ``plan``, quantized as planned.

    Raises:
        PlanFormatError: The plan names a class or component that the pipeline does not have.
        InputError: The pipeline cannot be found.
    """
    require_stored_weights(part.scheme for part in plan.components.values())
    named = plan.pipeline.as_source() if source is None else find_source(str(source))
    loader = loader_for(local_directory(named), trust_remote_code=trust_remote_code)
    require_same_pipeline(plan, loader)
    loader.adapters = by_component(plan.adapters)
    pipeline = build_pipeline(loader, plan.candidate, resolve_device(device)).pipeline
    if plan.runtime.compile != "none":
        compile_denoisers(pipeline, plan.runtime.compile)
    return pipeline


def require_same_pipeline(plan: Plan, loader: ComponentLoader) -> None:
    """Check the names in a plan against the pipeline's own.

    Raises:
        PlanFormatError: They differ.
    """
    class_name = loader.pipeline_class.__name__
    if plan.pipeline.class_name != class_name:
        raise PlanFormatError(
            f"The plan is for a {plan.pipeline.class_name}, "
            f"but {plan.pipeline.source} holds a {class_name}."
        )
    named = {*plan.components, *(adapter.component for adapter in plan.adapters)}
    unknown = sorted(named - set(loader.sizes))
    if unknown:
        raise PlanFormatError(
            f"The plan names {', '.join(unknown)}, which {plan.pipeline.source} does not have; "
            f"it has {', '.join(loader.sizes)}."
        )
