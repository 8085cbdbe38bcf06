"""What settings for my card? autoquant measures quantization choices and proves a plan.

Everything is imported on first use, so that ``import autoquant`` loads no machine learning library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from autoquant.errors import (
        AutoquantError,
        BackendUnavailable,
        InfeasibleBudget,
        InputError,
        MetricUnavailable,
        PlanFormatError,
        SearchInterrupted,
        UnsupportedPipeline,
    )
    from autoquant.planner.api import autoquant
    from autoquant.planner.budget import Budget
    from autoquant.planner.plan import Plan
    from autoquant.planner.workload import WorkloadRequest

_HOMES = {
    "AutoquantError": "autoquant.errors",
    "BackendUnavailable": "autoquant.errors",
    "Budget": "autoquant.planner.budget",
    "InfeasibleBudget": "autoquant.errors",
    "InputError": "autoquant.errors",
    "MetricUnavailable": "autoquant.errors",
    "Plan": "autoquant.planner.plan",
    "PlanFormatError": "autoquant.errors",
    "SearchInterrupted": "autoquant.errors",
    "UnsupportedPipeline": "autoquant.errors",
    "WorkloadRequest": "autoquant.planner.workload",
    "autoquant": "autoquant.planner.api",
}

__all__ = [
    "AutoquantError",
    "BackendUnavailable",
    "Budget",
    "InfeasibleBudget",
    "InputError",
    "MetricUnavailable",
    "Plan",
    "PlanFormatError",
    "SearchInterrupted",
    "UnsupportedPipeline",
    "WorkloadRequest",
    "autoquant",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
