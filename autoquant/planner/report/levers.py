"""The levers: what holds for the pipeline as a whole, and what else was measured of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autoquant.planner.candidate import Runtime
from autoquant.planner.plan import Plan
from autoquant.planner.report.choices import Alternative

NAMES = {
    "compute_dtype": "Compute dtype",
    "offload": "Offload",
    "compile": "Compile",
    "vae_tiling": "VAE tiling",
    "vae_slicing": "VAE slicing",
    "attention": "Attention",
}


@dataclass(frozen=True)
class LeverRow:
    """One lever.

    Attributes:
        name: In words.
        value: As planned, in words.
        alternatives: Candidates of the Pareto set that differ in this lever alone.
    """

    name: str
    value: str
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True)
class LeverGroup:
    """Values of levers that were not tried, or not with some schemes, for one reason."""

    reason: str
    values: tuple[str, ...]


def varying_levers(plan: Plan) -> tuple[str, ...]:
    """The levers that are not at their usual value in the whole Pareto set."""
    runtimes = {plan.runtime, *(point.runtime for point in plan.pareto)}
    usual = Runtime()
    return tuple(
        lever
        for lever in Runtime.model_fields
        if any(getattr(runtime, lever) != getattr(usual, lever) for runtime in runtimes)
    )


def lever_value(runtime: Runtime, lever: str) -> str:
    """The value in words: ``none``, ``model``, ``yes`` …"""
    value = getattr(runtime, lever)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value).replace("_", " ")


def lever_rows(plan: Plan) -> tuple[LeverRow, ...]:
    """The levers that vary, each with what was measured of its other values."""
    return tuple(
        LeverRow(
            NAMES.get(lever, lever),
            lever_value(plan.runtime, lever),
            tuple(_alternatives(plan, lever)),
        )
        for lever in varying_levers(plan)
    )


def struck_levers(plan: Plan) -> tuple[LeverGroup, ...]:
    """What was not tried of the levers, by reason; combinations with schemes come last."""
    groups: dict[str, dict[str, None]] = {}
    for struck in plan.search.levers_struck:
        value = f"{NAMES.get(struck.lever, struck.lever)} {_words(struck.value)}"
        groups.setdefault(struck.reason, {})[value] = None
    for conflict in plan.search.conflicts:
        value = f"{conflict.scheme} with {conflict.lever} {_words(conflict.value)}"
        groups.setdefault(conflict.reason, {})[value] = None
    return tuple(LeverGroup(reason, tuple(values)) for reason, values in groups.items())


def _alternatives(plan: Plan, lever: str) -> Iterator[Alternative]:
    planned = getattr(plan.runtime, lever)
    for point in plan.pareto:
        if point.components != plan.candidate.components or point.runtime == plan.runtime:
            continue
        if point.runtime.model_copy(update={lever: planned}) == plan.runtime:
            yield Alternative(lever_value(point.runtime, lever), point.measured)


def _words(value: str) -> str:
    return {"true": "on", "false": "off"}.get(value, value.replace("_", " "))
