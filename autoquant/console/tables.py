"""Plans as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from autoquant.console.sensitivity_table import sensitivity_tables
from autoquant.planner.candidate import Candidate, choice_label
from autoquant.planner.measurement import Measured
from autoquant.planner.plan import ParetoPoint, Plan, PredictionError, SearchSummary
from autoquant.planner.quantities import gigabytes, loss_text, seconds
from autoquant.planner.selection import describe, relative_excess

_NAMED_TIES = 3
_FIGURES = ("peak", "weights", "call", "loss", "worst")
# In fewer columns than a usual terminal's, the candidates' names need the room.
_NARROW = 80

# Of the points that miss the budget, as many as help to see what a little more would bring.
_SHOWN_BEYOND = 3


def plan_text(plan: Plan, width: int = 100) -> str:
    """The plan as plain text, ``width`` columns wide."""
    console = Console(width=width, no_color=True, highlight=False)
    with console.capture() as capture:
        console.print(plan_tables(plan, width))
    return capture.get().rstrip("\n")


def plan_tables(plan: Plan, width: int) -> RenderableType:
    """The verdict, the Pareto set, and the reason for each choice, for ``width`` columns."""
    return Group(
        _verdict(plan),
        Text(),
        _pareto_table(plan, narrow=width < _NARROW),
        Text(),
        _choices(plan),
        *sensitivity_tables(plan),
        *_notes(plan),
    )


def _verdict(plan: Plan) -> Text:
    measured = plan.measured
    saved = 1 - measured.peak_gb / plan.reference.peak_gb
    text = Text()
    text.append(f"{plan.pipeline.class_name} within {describe(plan.budget)}: ", style="bold")
    text.append(
        f"{gigabytes(measured.peak_gb)} peak ({measured.counter}), "
        f"{seconds(measured.latency_s.median)} a call "
        f"({seconds(measured.latency_s.low)} to {seconds(measured.latency_s.high)}), "
        f"{measured.metric} loss {measured.loss:.4g} "
        f"(noise floor {measured.noise_floor:.2g} taken off). "
    )
    if plan.candidate.is_reference:
        text.append(f"Nothing needs to be quantized{_levers_of(plan)}.")
    else:
        text.append(
            f"Unquantized: {gigabytes(plan.reference.peak_gb)}, "
            f"{seconds(plan.reference.latency_s)}; {saved:.0%} of the peak saved."
        )
    return text


def _levers_of(plan: Plan) -> str:
    return f" with {plan.runtime.label}" if plan.runtime.label else ""


def _pareto_table(plan: Plan, *, narrow: bool) -> Table:
    table = Table(
        title=f"Pareto set of {plan.search.trials} measured candidates, by {plan.measured.metric}",
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=None,
        pad_edge=False,
    )
    table.add_column("")
    for heading in ("peak", "call", "loss") if narrow else _FIGURES:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("candidate", overflow="fold")
    for point in _shown(plan):
        table.add_row(*_pareto_cells(point, narrow=narrow), style=_row_style(point))
    return table


def _shown(plan: Plan) -> list[ParetoPoint]:
    """The points within the budget, the nearest ones beyond it, and the unquantized pipeline."""
    beyond = [point for point in plan.pareto if not point.feasible]
    beyond.sort(key=lambda point: relative_excess(point.measured, plan.budget))
    nearest = beyond[:_SHOWN_BEYOND]
    return [
        point
        for point in plan.pareto
        if point.feasible or point in nearest or _changes_nothing(point)
    ]


def _changes_nothing(point: ParetoPoint) -> bool:
    return Candidate(components=point.components, runtime=point.runtime).is_reference


def _pareto_cells(point: ParetoPoint, *, narrow: bool) -> Iterator[str]:
    measured: Measured = point.measured
    yield "→" if point.chosen else ("" if point.feasible else "×")
    yield gigabytes(measured.peak_gb)
    if not narrow:
        yield gigabytes(measured.weights_gb)
    yield seconds(measured.latency_s.median)
    yield loss_text(measured.loss, is_estimate=not measured.is_whole)
    if not narrow:
        yield f"{measured.fidelity[measured.metric].worst:.4g}"
    yield Candidate(components=point.components, runtime=point.runtime).label


def _some(labels: Sequence[str]) -> str:
    rest = len(labels) - _NAMED_TIES
    return "; ".join(labels[:_NAMED_TIES]) + (f"; and {rest} more" if rest > 0 else "")


def _struck_schemes(plan: Plan) -> dict[str, list[str]]:
    """Schemes that no component could try, by reason."""
    tried = {choice.scheme for point in plan.pareto for choice in point.components.values()}
    reasons: dict[str, list[str]] = {}
    for struck in plan.search.struck:
        if struck.scheme not in {"*", *tried}:
            schemes = reasons.setdefault(struck.reason, [])
            if struck.scheme not in schemes:
                schemes.append(struck.scheme)
    return reasons


def _row_style(point: ParetoPoint) -> str:
    if point.chosen:
        return "bold green"
    return "" if point.feasible else "dim"


def _choices(plan: Plan) -> Table:
    table = Table(
        title="Chosen, and why",
        title_justify="left",
        title_style="bold",
        box=None,
        show_header=False,
        pad_edge=False,
    )
    table.add_column("", style="bold")
    table.add_column("")
    table.add_column("", overflow="fold")
    for name, part in plan.components.items():
        table.add_row(name, choice_label(part.choice), part.why)
    if plan.runtime.label:
        table.add_row("pipeline", plan.runtime.label, plan.runtime_why)
    return table


def _predictions(error: PredictionError) -> str:
    return (
        f"Predicted before they were measured: {error.checked} candidates; off by (median, worst) "
        f"{error.loss_median:.2g}, {error.loss_worst:.2g} in loss; "
        f"{error.peak_median:.1%}, {error.peak_worst:.1%} in peak memory; "
        f"{error.latency_median:.0%}, {error.latency_worst:.0%} in latency."
    )


def _pruned(search: SearchSummary) -> str:
    bounds = sorted(trial.bound_gb for trial in search.pruned_trials)
    needs = f": they need at least {gigabytes(bounds[0])} to {gigabytes(bounds[-1])}"
    return f"{search.pruned} candidates were ruled out unmeasured{needs if bounds else ''}."


def _notes(plan: Plan) -> Iterator[Text]:
    for again in plan.search.rechecks:
        yield Text(f"\n{again.sentence}")
    if plan.confirmation is not None:
        style = "" if plan.confirmation.holds else "bold red"
        yield Text(f"\n{plan.confirmation.sentence}", style=style)
    search = plan.search
    if plan.compile_payback is not None:
        yield Text(f"\n{plan.compile_payback.sentence}")
    if search.ties:
        yield Text(
            f"\nCannot be told from the choice in loss: {_some(search.ties)}. Rule: {search.rule}."
        )
    if search.failed:
        reasons = sorted({failure.reason for failure in search.failures})
        yield Text(f"\n{search.failed} candidates failed: {'; '.join(reasons)}")
    if search.pruned:
        yield Text(f"\n{_pruned(search)}")
    if search.stopped:
        yield Text(
            f"\n{search.stopped} candidates were stopped before their last image, as they could "
            f"no longer become the plan: {search.undrawn_images} images were spared. Their loss "
            "(≈) is estimated from the others."
        )
    for reason, schemes in _struck_schemes(plan).items():
        yield Text(f"\nNot tried: {', '.join(schemes)}: {reason}")
    if search.interrupted:
        yield Text(f"\nInterrupted: the best of the {search.trials} candidates measured so far.")
    if search.converged:
        yield Text(
            f"\nEnded after {search.trials} candidates: none is left that promises a better plan."
        )
    if search.prediction_error is not None:
        yield Text(f"\n{_predictions(search.prediction_error)}")
    for note in search.notes:
        yield Text(f"\n{note}")
    if plan.pareto and any(not point.feasible for point in plan.pareto):
        hidden = len(plan.pareto) - len(_shown(plan))
        more = f"   {hidden} more that miss it are in the plan" if hidden else ""
        yield Text(f"\n→ chosen   × misses the budget{more}")
