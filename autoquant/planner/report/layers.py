"""Which groups of layers hurt: what the search measured of the components that it looked into."""

from __future__ import annotations

from dataclasses import dataclass

from autoquant.planner.plan import Plan
from autoquant.planner.quantities import gigabytes
from autoquant.planner.sensitivity import GroupLoss, Sensitivity
from autoquant.search_spaces.exclusions import without_excluded


@dataclass(frozen=True)
class GroupRow:
    """One group of layers, quantized while everything else was left as it is.

    Attributes:
        name: Like ``attention, early blocks``.
        layers: How many layers it has.
        saved: Bytes that quantizing it saves, in words.
        loss: In words; ``fails`` where it could not be drawn.
        failure: Why not.
        share: The loss as a share of the largest.
        kept: Whether the plan leaves it unquantized.
    """

    name: str
    layers: int
    saved: str
    loss: str
    failure: str
    share: float
    kept: bool


@dataclass(frozen=True)
class LayerChart:
    """The groups of one component under one scheme, the one with the most loss a byte first."""

    component: str
    scheme: str
    is_chosen: bool
    prompts: int
    steps: int
    rows: tuple[GroupRow, ...]


def layer_charts(plan: Plan) -> tuple[LayerChart, ...]:
    """A chart for each component and scheme that was looked into, the chosen ones first."""
    charts = (_chart(plan, found) for found in plan.sensitivity)
    return tuple(sorted(charts, key=lambda chart: not chart.is_chosen))


def _chart(plan: Plan, found: Sensitivity) -> LayerChart:
    chosen = plan.components.get(found.component)
    is_chosen = chosen is not None and chosen.scheme == found.scheme
    exclusions = chosen.exclusions if chosen is not None and is_chosen else ()
    most = max((group.loss for group in found.groups if group.loss is not None), default=0.0)
    return LayerChart(
        component=found.component,
        scheme=found.scheme,
        is_chosen=is_chosen,
        prompts=found.prompts,
        steps=found.steps,
        rows=tuple(_row(group, most, exclusions) for group in found.groups),
    )


def _row(group: GroupLoss, most: float, exclusions: tuple[str, ...]) -> GroupRow:
    return GroupRow(
        name=group.group,
        layers=len(group.layers),
        saved=gigabytes(group.saved_gb),
        loss="fails" if group.loss is None else f"{group.loss:.3g}",
        failure=group.failure or "",
        share=1.0 if group.loss is None else group.loss / most if most > 0 else 0.0,
        kept=not without_excluded(group.layers, exclusions),
    )
