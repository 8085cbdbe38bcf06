"""The verdict in words, and the measured figures beside the budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autoquant.planner.budget import Budget
from autoquant.planner.measurement import Measured
from autoquant.planner.plan import Plan
from autoquant.planner.quantities import gigabytes, seconds
from autoquant.planner.report.points import loss_interval, missed_limits
from autoquant.planner.selection import describe


@dataclass(frozen=True)
class Gauge:
    """A figure as a bar: shares of the widest of value, unquantized value and limit."""

    value: float
    reference: float | None
    limit: float | None


@dataclass(frozen=True)
class Figure:
    """One measured quantity.

    Attributes:
        name: What was measured.
        value: With unit.
        notes: How far it varies, and what was taken off.
        reference: The same of the unquantized pipeline, or nothing.
        change: In words, or nothing.
        limit: The budget, or nothing.
        gauge: The same as a bar, where there is something to compare with.
    """

    name: str
    value: str
    notes: tuple[str, ...] = ()
    reference: str = ""
    change: str = ""
    limit: str = ""
    gauge: Gauge | None = None


def headline(plan: Plan) -> str:
    """The verdict in a sentence."""
    name, limits = plan.pipeline.class_name, describe(plan.budget)
    missed = missed_limits(plan.measured, plan.budget)
    if missed:
        return f"{name} does not stay within {limits}: it misses {' and '.join(missed)}."
    if plan.candidate.is_reference and not plan.runtime.label:
        return f"{name} stays within {limits} as it is: nothing needs to be quantized."
    peaks = (
        f"{gigabytes(plan.measured.peak_gb)} at the peak instead of "
        f"{gigabytes(plan.reference.peak_gb)} unquantized"
    )
    if limits == describe(Budget()):
        return f"{name} runs with {peaks}."
    return f"{name} stays within {limits}: {peaks}."


def lead(plan: Plan) -> Iterator[str]:
    """What stands behind the verdict, sentence by sentence."""
    measured = plan.measured
    yield f"The choice is {plan.candidate.label}."
    if plan.candidate.is_reference and not plan.runtime.label:
        return
    n_images = len(plan.workload.samples)
    images = f"{n_images} images" if n_images > 1 else "one image"
    yield (
        f"Over {images} its {measured.metric} loss against the unquantized pipeline is "
        f"{measured.loss:.2g}"
        + (
            f", on top of the {measured.noise_floor:.2g} by which the unquantized pipeline differs "
            "from itself when only its attention kernel changes."
            if measured.noise_floor > 0
            else "."
        )
    )
    if plan.confirmation is not None:
        yield plan.confirmation.sentence
    if plan.search.interrupted:
        yield "The search was interrupted: this is the best of what was measured until then."


def figures_of(plan: Plan) -> tuple[Figure, ...]:
    """Every measured quantity, the ones with a budget first."""
    measured, reference, budget = plan.measured, plan.reference, plan.budget
    unquantized = _measured_reference(plan)
    figures = [
        _memory("Peak memory of a call", measured.peak_gb, reference.peak_gb, budget.vram_gb),
        _latency(plan),
        _loss(measured, budget.max_loss),
        *_unseen(plan),
        _memory("Weights held", measured.weights_gb, reference.weights_gb, None),
        _memory(
            "Peak memory while loading",
            measured.load_peak_gb,
            unquantized.load_peak_gb if unquantized else None,
            budget.load_peak_gb,
        ),
    ]
    if measured.compile_s > 0:
        figures.append(Figure("Compiling, once", seconds(measured.compile_s)))
    figures += [
        Figure(f"Peak by {name}", gigabytes(gb)) for name, gb in measured.other_counters_gb.items()
    ]
    return tuple(figures)


def change(value: float, reference: float) -> str:
    """``40% less``, ``12% more`` or ``no different``."""
    if reference <= 0 or round(100 * value / reference) == 100:
        return "no different"
    share = value / reference - 1
    return f"{abs(share):.0%} {'more' if share > 0 else 'less'}"


def _measured_reference(plan: Plan) -> Measured | None:
    point = plan.reference_point
    return point.measured if point else None


def _memory(name: str, gb: float, reference: float | None, limit: float | None) -> Figure:
    return Figure(
        name=name,
        value=gigabytes(gb),
        reference="" if reference is None else gigabytes(reference),
        change="" if reference is None else change(gb, reference),
        limit="" if limit is None else gigabytes(limit),
        gauge=_gauge(gb, reference, limit),
    )


def _latency(plan: Plan) -> Figure:
    latency, reference = plan.measured.latency_s, plan.reference.latency_s
    limit = plan.budget.latency_s
    ends = f"{seconds(latency.low)} to {seconds(latency.high)}"
    spread = f"{ends}, the middle half of {latency.runs} calls"
    return Figure(
        name="Time of a call",
        value=seconds(latency.median),
        notes=(spread if latency.runs > 1 else "timed once",),
        reference=seconds(reference),
        change=change(latency.median, reference),
        limit="" if limit is None else seconds(limit),
        gauge=_gauge(latency.median, reference, limit),
    )


def _loss(measured: Measured, limit: float | None) -> Figure:
    interval = loss_interval(measured)
    notes = [f"noise floor {measured.noise_floor:.2g}, taken off"]
    if interval is not None and interval[1] > 0:
        notes.insert(0, f"{interval[0]:.2g} to {interval[1]:.2g}, 95% interval")
    return Figure(
        name=f"Loss ({measured.metric})",
        value=f"{measured.loss:.3g}",
        notes=tuple(notes),
        limit="" if limit is None else f"{limit:.3g}",
        gauge=None if limit is None else _gauge(measured.loss, None, limit),
    )


def _unseen(plan: Plan) -> Iterator[Figure]:
    """The loss on prompts that the search never saw, where it was confirmed on some."""
    confirmation = plan.confirmation
    if confirmation is None or confirmation.found is None:
        return
    found = confirmation.found
    notes = [f"worst {found.worst:.3g}", "holds up" if confirmation.holds else "does not hold up"]
    if found.low is not None and found.high is not None:
        notes.insert(0, f"{found.low:.2g} to {found.high:.2g}, 95% interval")
    yield Figure("Loss on unseen prompts", f"{found.mean:.3g}", notes=tuple(notes))


def _gauge(value: float, reference: float | None, limit: float | None) -> Gauge | None:
    others = [other for other in (reference, limit) if other is not None]
    if not others:
        return None
    widest = max(value, *others) or 1.0
    if limit is not None and limit > 2 * max(value, reference or 0.0):
        # A bar drawn to a limit far away would show nothing but that.
        return _gauge(value, reference, None)
    return Gauge(
        value=value / widest,
        reference=None if reference is None else reference / widest,
        limit=None if limit is None else limit / widest,
    )
