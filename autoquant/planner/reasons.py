"""Why each component and each lever of a plan is as it is, in one line, from what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Runtime
from autoquant.planner.measurement import Measured, Trial
from autoquant.planner.quantities import gigabytes, seconds
from autoquant.planner.selection import is_feasible
from autoquant.planner.sensitivity import Sensitivity
from autoquant.search_spaces.exclusions import without_excluded
from autoquant.search_spaces.levers import LEVERS
from autoquant.search_spaces.scheme import NONE, Choice


def reason(
    component: str,
    chosen: Trial,
    reference: Measured,
    trials: Sequence[Trial],
    budget: Budget,
    sensitivity: Sequence[Sensitivity] = (),
) -> str:
    """One line for one component of the chosen trial."""
    assert chosen.measured is not None
    choice = chosen.candidate.components[component]
    before = reference.component_gb[component]
    after = chosen.measured.component_gb[component]
    if choice.scheme == NONE:
        return f"stays in {chosen.candidate.runtime.compute_dtype}: {gigabytes(after)}" + (
            ", projections fused" if choice.fuse_qkv else ""
        )
    text = (
        f"{gigabytes(before)} becomes {gigabytes(after)} "
        f"({chosen.measured.quantized_layers[component]} layers quantized)"
    )
    text += _raised(choice, [found for found in sensitivity if found.component == component])
    if budget.vram_gb is not None and chosen.measured.peak_gb - after + before > budget.vram_gb:
        text += f"; unquantized it would not fit {gigabytes(budget.vram_gb)}"
    return text + _measured_alternative(component, choice, chosen, trials)


def runtime_reason(chosen: Trial, trials: Sequence[Trial], budget: Budget) -> str:
    """What each lever that is pulled brought, from trials that differ in it alone."""
    assert chosen.measured is not None
    runtime, usual = chosen.candidate.runtime, Runtime()
    sentences = []
    for lever in LEVERS:
        if getattr(runtime, lever) == getattr(usual, lever):
            continue
        without = runtime.model_copy(update={lever: getattr(usual, lever)})
        twin = chosen.candidate.model_copy(update={"runtime": without})
        known = next((t for t in trials if t.candidate == twin and t.measured), None)
        name = lever.replace("_", " ")
        if known is None or known.measured is None:
            sentences.append(f"{name}: not measured without it")
            continue
        misses = " (misses the budget)" if not is_feasible(known.measured, budget) else ""
        sentences.append(
            f"without {name}: peak {gigabytes(known.measured.peak_gb)}, "
            f"{seconds(known.measured.latency_s.median)} a call, "
            f"loss {known.measured.loss:.4g}{misses}"
        )
    return "; ".join(sentences)


def _raised(choice: Choice, sensitivity: Sequence[Sensitivity]) -> str:
    """Which layers have another precision, and why, where groups of them were measured."""
    if not choice.overrides:
        return ""
    others = " and ".join(override.scheme for override in choice.overrides)
    for found in sensitivity:
        raised = found.raised_groups(choice)
        kept = [
            group.group
            for group in found.groups
            if not without_excluded(group.layers, choice.exclusions)
        ]
        if raised:
            beside = f", and {', '.join(kept)} left as it is" if kept else ""
            return (
                f"; {', '.join(raised)} in {others}{beside}: of all groups, these lose most for a "
                "byte"
            )
    modules = sum(len(override.layers) for override in choice.overrides)
    plural = "s" if modules > 1 else ""
    return f"; {modules} module{plural} in {others}, as the space file offers it"


def _measured_alternative(
    component: str, choice: Choice, chosen: Trial, trials: Sequence[Trial]
) -> str:
    """Name the best trial that differs in this component's scheme, or precisions, alone."""
    assert chosen.measured is not None
    alike = [
        trial
        for trial in trials
        if trial.measured is not None
        and trial.candidate.components[component].schemes != choice.schemes
        and all(
            trial.candidate.components[name] == other
            for name, other in chosen.candidate.components.items()
            if name != component
        )
    ]
    if not alike:
        return ""
    other = min(alike, key=lambda trial: trial.measured.loss if trial.measured else 0.0)
    assert other.measured is not None
    schemes = " and ".join(other.candidate.components[component].schemes)
    return (
        f"; with {schemes} here: loss {other.measured.loss:.4g}, "
        f"peak {gigabytes(other.measured.peak_gb)}"
    )
