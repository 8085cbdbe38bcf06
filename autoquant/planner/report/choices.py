"""What was chosen for each component, what it saved, and why; and what was not chosen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autoquant.planner.candidate import Candidate, choice_label
from autoquant.planner.measurement import Measured
from autoquant.planner.plan import Plan
from autoquant.planner.quantities import gigabytes
from autoquant.search_spaces.scheme import Override
from autoquant.search_spaces.space import EVERY_SCHEME


@dataclass(frozen=True)
class Alternative:
    """Another choice for one component, and what the whole pipeline measured with it."""

    choice: str
    measured: Measured


@dataclass(frozen=True)
class ComponentRow:
    """One component of the pipeline.

    Attributes:
        name: Like ``transformer``.
        choice: In words.
        exclusions: Paths of the layers that stay in the compute dtype.
        overrides: Layers in another precision.
        before: Bytes unquantized, or nothing where they are not known.
        after: Bytes as planned.
        saved: In words, or nothing.
        share_before: Bytes before as a share of the largest component.
        share_after: Bytes as planned as such a share.
        layers: How many layers are quantized.
        why: From the plan.
        alternatives: Candidates of the Pareto set that differ in this component alone.
    """

    name: str
    choice: str
    exclusions: tuple[str, ...]
    overrides: tuple[Override, ...]
    before: str
    after: str
    saved: str
    share_before: float
    share_after: float
    layers: int
    why: str
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True)
class StruckGroup:
    """Schemes that were not tried for one reason."""

    reason: str
    schemes: tuple[str, ...]
    components: tuple[str, ...]


@dataclass(frozen=True)
class FailureGroup:
    """Candidates that could not be measured for one reason."""

    reason: str
    candidates: tuple[str, ...]


def component_rows(plan: Plan) -> tuple[ComponentRow, ...]:
    """The components that were decided on, then those that were left alone; largest first."""
    before = _unquantized_sizes(plan)
    after = plan.measured.component_gb
    widest = max([*before.values(), *after.values()], default=0.0) or 1.0
    names = [*plan.components, *(name for name in after if name not in plan.components)]
    rows = [_row(plan, name, before.get(name), after.get(name), widest) for name in names]
    return tuple(sorted(rows, key=lambda row: -max(row.share_before, row.share_after)))


def struck_groups(plan: Plan) -> tuple[StruckGroup, ...]:
    """Struck schemes by reason; whole components are said in their rows."""
    groups: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for struck in plan.search.struck:
        if struck.scheme != EVERY_SCHEME:
            schemes, components = groups.setdefault(struck.reason, ({}, {}))
            schemes[struck.scheme] = None
            components[struck.component] = None
    return tuple(
        StruckGroup(reason, tuple(schemes), tuple(components))
        for reason, (schemes, components) in groups.items()
    )


def failure_groups(plan: Plan) -> tuple[FailureGroup, ...]:
    """Failed candidates by reason."""
    groups: dict[str, list[str]] = {}
    for failure in plan.search.failures:
        label = Candidate(components=failure.components, runtime=plan.runtime).label
        groups.setdefault(failure.reason, []).append(label)
    return tuple(FailureGroup(reason, tuple(labels)) for reason, labels in groups.items())


def ruled_out(plan: Plan) -> tuple[tuple[str, float], ...]:
    """Candidates that were never loaded and the GiB they would need at least, the least first."""
    labels = (
        (Candidate(components=trial.components, runtime=trial.runtime).label, trial.bound_gb)
        for trial in plan.search.pruned_trials
    )
    return tuple(sorted(labels, key=lambda item: item[1]))


def _row(
    plan: Plan, name: str, before: float | None, after: float | None, widest: float
) -> ComponentRow:
    part = plan.components.get(name)
    saved = before - after if before is not None and after is not None else None
    return ComponentRow(
        name=name,
        choice=choice_label(part.choice) if part else "left alone",
        exclusions=part.exclusions if part else (),
        overrides=part.overrides if part else (),
        before="" if before is None else gigabytes(before),
        after="" if after is None else gigabytes(after),
        saved="" if saved is None or before is None else _saved(saved, before),
        share_before=(before or 0.0) / widest,
        share_after=(after or 0.0) / widest,
        layers=plan.measured.quantized_layers.get(name, 0),
        why=part.why if part else _why_left_alone(plan, name),
        alternatives=tuple(_alternatives(plan, name)) if part else (),
    )


def _alternatives(plan: Plan, name: str) -> Iterator[Alternative]:
    chosen = plan.candidate
    for point in plan.pareto:
        other = point.components.get(name)
        if other is None or other == chosen.components[name] or point.runtime != chosen.runtime:
            continue
        if {**point.components, name: chosen.components[name]} == chosen.components:
            yield Alternative(choice_label(other), point.measured)


def _saved(saved: float, before: float) -> str:
    if before <= 0 or round(100 * saved / before) == 0:
        return "nothing"
    return f"{gigabytes(saved)} ({saved / before:.0%})"


def _why_left_alone(plan: Plan, name: str) -> str:
    return "; ".join(
        struck.reason
        for struck in plan.search.struck
        if struck.component == name and struck.scheme == EVERY_SCHEME
    )


def _unquantized_sizes(plan: Plan) -> dict[str, float]:
    """Known where the unquantized pipeline is among the measured candidates of the plan."""
    point = plan.reference_point
    return point.measured.component_gb if point else {}
