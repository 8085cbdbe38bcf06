"""The candidates that the report shows, each with its figures in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autoquant.metrics.score import losses_of
from autoquant.metrics.statistics import mean_interval
from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.measurement import Measured
from autoquant.planner.plan import ParetoPoint, Plan
from autoquant.planner.quantities import gigabytes, seconds
from autoquant.planner.report.levers import lever_value, varying_levers
from autoquant.planner.selection import excess

Interval = tuple[float, float]


@dataclass(frozen=True)
class Point:
    """One candidate.

    Attributes:
        key: Short name that links a mark of a plot with its row of the table.
        name: What a person calls it.
        choices: The same without the levers.
        levers: Values of the levers that vary in the plan, in words.
        peak_gb: Peak memory of a call in GiB.
        weights_gb: Bytes held after loading, in GiB.
        latency_s: Median seconds of a call.
        latency_spread: Lower and upper quartile, where several calls were timed.
        loss: Loss, noise floor taken off.
        loss_interval: 95% interval of the mean loss, noise floor taken off, where there is one.
        worst: Deciding metric of the worst image.
        chosen: Whether it is the plan.
        is_reference: Whether nothing is quantized.
        tied: Whether its loss cannot be told from that of the plan.
        missed: Which limits it misses, in words; empty if none.
        stopped: Why not every image was drawn, or empty; its loss is then an estimate.
    """

    key: str
    name: str
    choices: str
    levers: tuple[str, ...]
    peak_gb: float
    weights_gb: float
    latency_s: float
    latency_spread: Interval | None
    loss: float
    loss_interval: Interval | None
    worst: float | None
    chosen: bool
    is_reference: bool
    tied: bool
    missed: tuple[str, ...]
    stopped: str = ""

    @property
    def kind(self) -> str:
        """How it is drawn."""
        if self.chosen:
            return "chosen"
        return "misses" if self.missed else "fits"

    @property
    def status(self) -> str:
        """Where it stands, in words."""
        if self.chosen:
            return "chosen"
        misses = f"misses {' and '.join(self.missed)}" if self.missed else ""
        if self.stopped:
            early = "loss estimated from its first images"
            return f"{misses}; {early}" if misses else f"{self.stopped}; {early}"
        return misses or ("same loss as the choice, within the spread" if self.tied else "")

    @property
    def summary(self) -> str:
        """One line with every figure."""
        figures = f"{gigabytes(self.peak_gb)}, {seconds(self.latency_s)}, loss {self.loss:.3g}"
        return f"{self.name}: {figures}" + (f"; {self.status}" if self.status else "")


def points_of(plan: Plan) -> tuple[Point, ...]:
    """The Pareto set, smallest peak first; the unquantized pipeline is among them in any case."""
    points = [_point(key_of(at), point, plan) for at, point in enumerate(plan.pareto)]
    if not any(point.chosen for point in points):
        own = ParetoPoint(
            components=plan.candidate.components,
            runtime=plan.runtime,
            measured=plan.measured,
            chosen=True,
        )
        points.append(_point("choice-plan", own, plan))
    if not any(point.is_reference for point in points):
        points.append(_reference(plan))
    return tuple(sorted(points, key=lambda point: point.peak_gb))


def key_of(place: int) -> str:
    """The key of a candidate by its place in the Pareto set."""
    return f"choice-{place}"


def loss_interval(measured: Measured) -> Interval | None:
    """95% interval of the mean loss, noise floor taken off."""
    score = measured.fidelity.get(measured.metric)
    if score is None or not score.per_image:
        return None
    interval = mean_interval(losses_of(measured.metric, score))
    if interval.low is None or interval.high is None:
        return None
    scale, floor = measured.loss_scale, measured.noise_floor
    return max(0.0, scale * interval.low - floor), max(0.0, scale * interval.high - floor)


def missed_limits(measured: Measured, budget: Budget) -> tuple[str, ...]:
    """The limits that are not kept, each with by how much."""
    texts = {
        "vram_gb": lambda by: f"memory by {_at_least(by, gigabytes)}",
        "latency_s": lambda by: f"time by {_at_least(by, seconds)}",
        "load_peak_gb": lambda by: f"memory while loading by {_at_least(by, gigabytes)}",
        "ram_gb": lambda by: f"host memory by {_at_least(by, gigabytes)}",
        "max_loss": lambda by: f"loss by {by:.2g}",
    }
    return tuple(texts[name](by) for name, by in excess(measured, budget).items() if by > 0)


def _choices(candidate: Candidate) -> str:
    usual = Runtime(compute_dtype=candidate.runtime.compute_dtype)
    return candidate.model_copy(update={"runtime": usual}).label


def _levers(runtime: Runtime, plan: Plan) -> tuple[str, ...]:
    return tuple(lever_value(runtime, lever) for lever in varying_levers(plan))


def _at_least(by: float, words: Callable[[float], str]) -> str:
    """``0.12 MB``, or ``a hair`` where the printed digits would all be zero."""
    text = words(by)
    return text if any(digit in text for digit in "123456789") else "a hair"


def _point(key: str, point: ParetoPoint, plan: Plan) -> Point:
    measured = point.measured
    candidate = Candidate(components=point.components, runtime=point.runtime)
    latency = measured.latency_s
    score = measured.fidelity.get(measured.metric)
    return Point(
        key=key,
        name=candidate.label,
        choices=_choices(candidate),
        levers=_levers(candidate.runtime, plan),
        peak_gb=measured.peak_gb,
        weights_gb=measured.weights_gb,
        latency_s=latency.median,
        latency_spread=(latency.low, latency.high) if latency.runs > 1 else None,
        loss=measured.loss,
        loss_interval=loss_interval(measured),
        worst=score.worst if score else None,
        chosen=point.chosen,
        is_reference=point is plan.reference_point,
        tied=candidate.label in plan.search.ties,
        missed=missed_limits(measured, plan.budget),
        stopped=measured.stopped,
    )


def _reference(plan: Plan) -> Point:
    """The unquantized pipeline from the few figures that every plan keeps of it."""
    cost, budget = plan.reference, plan.budget
    missed = []
    if budget.vram_gb is not None and cost.peak_gb > budget.vram_gb:
        missed.append(f"memory by {_at_least(cost.peak_gb - budget.vram_gb, gigabytes)}")
    if budget.latency_s is not None and cost.latency_s > budget.latency_s:
        missed.append(f"time by {_at_least(cost.latency_s - budget.latency_s, seconds)}")
    unchanged = Candidate(components={}, runtime=plan.runtime)
    return Point(
        key="choice-unquantized",
        name=unchanged.label,
        choices=_choices(unchanged),
        levers=_levers(plan.runtime, plan),
        peak_gb=cost.peak_gb,
        weights_gb=cost.weights_gb,
        latency_s=cost.latency_s,
        latency_spread=None,
        loss=0.0,
        loss_interval=None,
        worst=None,
        chosen=False,
        is_reference=True,
        tied=False,
        missed=tuple(missed),
    )
