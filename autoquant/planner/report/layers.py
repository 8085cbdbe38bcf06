"""Which groups of layers hurt: what the search measured of the components that it looked into."""

from __future__ import annotations

from dataclasses import dataclass

from autoquant.planner.plan import Plan
from autoquant.planner.quantities import gigabytes
from autoquant.planner.sensitivity import GroupLoss, Sensitivity
from autoquant.search_spaces.exclusions import without_excluded
from autoquant.search_spaces.scheme import Choice


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
        raised: The precision that the plan has for it instead of the usual; empty if none.
    """

    name: str
    layers: int
    saved: str
    loss: str
    failure: str
    share: float
    kept: bool
    raised: str


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
    choice = chosen.choice if chosen is not None and is_chosen else Choice(scheme=found.scheme)
    most = max((group.loss for group in found.groups if group.loss is not None), default=0.0)
    return LayerChart(
        component=found.component,
        scheme=found.scheme,
        is_chosen=is_chosen,
        prompts=found.prompts,
        steps=found.steps,
        rows=tuple(_row(found, group, most, choice) for group in found.groups),
    )


def _row(found: Sensitivity, group: GroupLoss, most: float, choice: Choice) -> GroupRow:
    return GroupRow(
        name=group.group,
        layers=len(group.layers),
        saved=gigabytes(group.saved_gb),
        loss="fails" if group.loss is None else f"{group.loss:.3g}",
        failure=group.failure or "",
        share=1.0 if group.loss is None else group.loss / most if most > 0 else 0.0,
        kept=not without_excluded(group.layers, choice.exclusions),
        raised=found.raised_to(group, choice),
    )
