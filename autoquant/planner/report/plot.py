"""The Pareto plots as geometry: loss against peak memory, and loss against time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autoquant.planner.plan import Plan
from autoquant.planner.quantities import gigabytes, seconds
from autoquant.planner.report.axis import LinearAxis, RootAxis, Tick, Unit, memory_unit, time_unit
from autoquant.planner.report.labels import Label, Side, place_labels
from autoquant.planner.report.points import Point, points_of

WIDTH, HEIGHT = 420, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 404, 34, 274
# A limit further off than this many times the largest value would squeeze the points together.
_FAR = 1.5


@dataclass(frozen=True)
class Mark:
    """A point in pixels.

    Attributes:
        point: What it stands for.
        x: Pixels from the left.
        y: Pixels from the top.
        x_whisker: Ends of the spread along x, or None.
        y_whisker: Ends of the interval along y, or None.
    """

    point: Point
    x: float
    y: float
    x_whisker: tuple[float, float] | None
    y_whisker: tuple[float, float] | None


@dataclass(frozen=True)
class Limit:
    """A budget: a line at ``at`` pixels, or None where it lies beyond the plot."""

    at: float | None
    text: str
    side: Side = "start"


@dataclass(frozen=True)
class Plot:
    """One plot, ready to be drawn.

    Attributes:
        name: Short name, fit for an id.
        title: What it shows.
        x_label: Quantity and unit of the horizontal axis.
        y_label: The same of the vertical one.
        x_ticks: Ticks of the horizontal axis.
        y_ticks: Ticks of the vertical one.
        x_limit: The budget on x, if one was given.
        y_limit: The limit on the loss, if one was given.
        front: Corners of the line that no point lies below and left of.
        marks: The points, the chosen one last, so that it lies on top.
        labels: Texts beside some of the marks.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    x_limit: Limit | None
    y_limit: Limit | None
    front: tuple[tuple[float, float], ...]
    marks: tuple[Mark, ...]
    labels: tuple[Label, ...]
    left: int = _LEFT
    right: int = _RIGHT
    top: int = _TOP
    bottom: int = _BOTTOM
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True)
class _Horizontal:
    """What a plot shows from left to right."""

    name: str
    title: str
    label: str
    unit: Callable[[Sequence[float]], Unit]
    text: Callable[[float], str]
    value: Callable[[Point], float]
    spread: Callable[[Point], tuple[float, float] | None]


_MEMORY = _Horizontal(
    name="memory",
    title="Loss against peak memory",
    label="peak memory of a call",
    unit=memory_unit,
    text=gigabytes,
    value=lambda point: point.peak_gb,
    spread=lambda point: None,
)
_TIME = _Horizontal(
    name="time",
    title="Loss against time",
    label="time of a call",
    unit=time_unit,
    text=seconds,
    value=lambda point: point.latency_s,
    spread=lambda point: point.latency_spread,
)


def plots_of(plan: Plan) -> tuple[Plot, ...]:
    """Both plots."""
    points = points_of(plan)
    return (
        _plot(plan, points, _MEMORY, plan.budget.vram_gb),
        _plot(plan, points, _TIME, plan.budget.latency_s),
    )


def _plot(plan: Plan, points: Sequence[Point], across: _Horizontal, limit: float | None) -> Plot:
    values = [across.value(point) for point in points]
    ends = [end for point in points for end in (across.spread(point) or ())]
    near = [] if limit is None or limit > _FAR * max(values) else [limit]
    unit = across.unit(values)
    x_axis = LinearAxis.around([*values, *ends, *near], _LEFT, _RIGHT, unit)
    y_axis = _loss_axis(points, plan.budget.max_loss)
    x_limit = _x_limit(limit, across, x_axis)
    marks = [_mark(point, across, x_axis, y_axis) for point in points]
    metric = plan.measured.metric
    return Plot(
        name=across.name,
        title=across.title,
        x_label=f"{across.label} ({unit.name})",
        y_label=f"{metric} loss, square-root scale",
        x_ticks=x_axis.ticks(),
        y_ticks=y_axis.ticks(),
        x_limit=x_limit,
        y_limit=_y_limit(plan.budget.max_loss, y_axis),
        front=_front(marks),
        marks=tuple(sorted(marks, key=lambda mark: mark.point.chosen)),
        labels=_labels(marks, x_limit.at if x_limit else None),
    )


def _loss_axis(points: Sequence[Point], max_loss: float | None) -> RootAxis:
    tops = [point.loss_interval[1] if point.loss_interval else point.loss for point in points]
    near = [] if max_loss is None or max_loss > _FAR * max(tops) else [max_loss]
    return RootAxis.up_to([*tops, *near], _BOTTOM, _TOP)


def _mark(point: Point, across: _Horizontal, x_axis: LinearAxis, y_axis: RootAxis) -> Mark:
    spread = across.spread(point)
    interval = point.loss_interval
    return Mark(
        point=point,
        x=x_axis.place(across.value(point)),
        y=y_axis.place(point.loss),
        x_whisker=(x_axis.place(spread[0]), x_axis.place(spread[1])) if spread else None,
        y_whisker=(y_axis.place(interval[0]), y_axis.place(interval[1])) if interval else None,
    )


def _labels(marks: Sequence[Mark], line: float | None) -> tuple[Label, ...]:
    """The chosen one is named first, so that it is never the one without room."""
    named = [(mark, "chosen") for mark in marks if mark.point.chosen]
    named += [
        (mark, "unquantized") for mark in marks if mark.point.is_reference and not mark.point.chosen
    ]
    wanted = [(text, mark.x, mark.y) for mark, text in named]
    return tuple(label for label in place_labels(wanted, _LEFT, _RIGHT, line) if label)


def _x_limit(limit: float | None, across: _Horizontal, axis: LinearAxis) -> Limit | None:
    if limit is None:
        return None
    if limit > axis.high:
        return Limit(None, f"budget {across.text(limit)}, further right →", "end")
    at = axis.place(limit)
    side: Side = "start" if at < (_LEFT + _RIGHT) / 2 else "end"
    return Limit(at, f"budget {across.text(limit)}", side)


def _y_limit(limit: float | None, axis: RootAxis) -> Limit | None:
    if limit is None:
        return None
    if limit > axis.high:
        return Limit(None, f"limit {limit:.3g}, further up ↑")
    return Limit(axis.place(limit), f"limit {limit:.3g}")


def _front(marks: Sequence[Mark]) -> tuple[tuple[float, float], ...]:
    """A staircase through the marks that no other beats in both, left to right."""
    corners: list[tuple[float, float]] = []
    for mark in sorted(marks, key=lambda mark: (mark.x, -mark.y)):
        if corners and mark.y <= corners[-1][1]:
            continue
        if corners:
            corners.append((mark.x, corners[-1][1]))
        corners.append((mark.x, mark.y))
    return tuple(corners)
