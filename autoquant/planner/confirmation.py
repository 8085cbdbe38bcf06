"""Does the winner hold up on prompts and seeds that the search never saw?"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from autoquant.errors import CandidateFailed, InfeasibleBudget
from autoquant.metrics.guard import lost_prompts
from autoquant.metrics.score import MetricScore, losses_of
from autoquant.metrics.statistics import mean_interval
from autoquant.planner.budget import Budget
from autoquant.planner.evaluator import Comparer
from autoquant.planner.measurement import Comparison, Measured, Trial
from autoquant.planner.quantities import seconds
from autoquant.planner.selection import Selection, choose
from autoquant.planner.workload import Workload

# Winners that are tried before the first one is kept for want of a better.
_MOST_WINNERS = 3
_FEWEST_PROMPTS, _MOST_PROMPTS = 2, 8


class LossSummary(BaseModel):
    """A loss over some images, noise floor taken off each figure.

    Attributes:
        low: Lower end of the 95% interval of the mean; ``None`` for one image.
        high: Upper end.
        worst: Of the worst image.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    mean: float
    low: float | None
    high: float | None
    worst: float

    @property
    def text(self) -> str:
        """The mean and its interval."""
        if self.low is None or self.high is None:
            return f"{self.mean:.3g}"
        return f"{self.mean:.3g} ({self.low:.3g} to {self.high:.3g})"


class NotConfirmed(BaseModel):
    """A candidate that was better in the search, and did not hold up."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    label: str
    reasons: tuple[str, ...]


class Confirmation(BaseModel):
    """How the chosen candidate did on prompts and seeds that the search never saw.

    Attributes:
        prompts: What was drawn.
        seeds: Of each prompt.
        metric: The deciding metric.
        noise_floor: Of the unquantized pipeline on these prompts.
        searched: The loss on the search's own prompts.
        found: The loss on the new ones; ``None`` if they could not be drawn.
        fidelity: Every metric against the unquantized images of the same prompts.
        compile_s: Seconds that compiling it for this took.
        reasons: Why it does not hold up; empty if it does.
        instead_of: Candidates that the search preferred, and that did not hold up either.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    metric: str
    noise_floor: float = 0.0
    searched: LossSummary
    found: LossSummary | None
    fidelity: dict[str, MetricScore] = {}
    compile_s: float = 0.0
    reasons: tuple[str, ...] = ()
    instead_of: tuple[NotConfirmed, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against the choice."""
        return not self.reasons

    @property
    def sentence(self) -> str:
        """What came out, for people."""
        n_images = len(self.prompts) * len(self.seeds)
        where = f"on {n_images} images of prompts and seeds that the search never saw"
        if self.reasons:
            text = f"Does not hold up {where}: {'; '.join(self.reasons)}."
        else:
            assert self.found is not None
            text = (
                f"Holds up {where}: {self.metric} loss {self.found.text}, worst "
                f"{self.found.worst:.3g}; in the search {self.searched.text}."
            )
        if self.compile_s > 0:
            text += f" It was compiled for this, in {seconds(self.compile_s)}."
        for other in self.instead_of:
            text += f" {other.label} was better in the search: {'; '.join(other.reasons)}."
        return text


def unseen_workload(workload: Workload, prompts: Sequence[str]) -> Workload:
    """As many of ``prompts`` as the search had, from two to eight, and a seed that it had not."""
    new = [prompt for prompt in prompts if prompt not in workload.prompts]
    n_prompts = min(max(len(workload.prompts), _FEWEST_PROMPTS), _MOST_PROMPTS)
    return workload.model_copy(
        update={"prompts": tuple(new[:n_prompts]), "seeds": (max(workload.seeds) + 1,)}
    )


def confirm(
    selection: Selection,
    trials: Sequence[Trial],
    budget: Budget,
    comparer: Comparer,
    workload: Workload,
) -> tuple[Selection, Confirmation | None]:
    """Draw ``workload`` with the winner, and with the next one where it does not hold up.

    Returns:
        The selection of the first one that holds up, or the one given if none of the first three
        does; and what came out for it. ``None`` if the choice changes nothing.
    """
    refused: list[tuple[Trial, Confirmation]] = []
    current: Selection | None = selection
    while current is not None and len(refused) < _MOST_WINNERS:
        if _changes_nothing(current.chosen, trials):
            break
        found = _confirmed(current.chosen, budget, comparer, workload)
        if found.holds:
            instead_of = tuple(
                NotConfirmed(label=trial.candidate.label, reasons=other.reasons)
                for trial, other in refused
            )
            return current, found.model_copy(update={"instead_of": instead_of})
        refused.append((current.chosen, found))
        current = _next(trials, budget, [trial for trial, _ in refused])
    return selection, refused[0][1] if refused else None


def _next(trials: Sequence[Trial], budget: Budget, refused: Sequence[Trial]) -> Selection | None:
    left = [trial for trial in trials if trial not in refused]
    try:
        chosen = choose(left, budget).chosen
        # The Pareto set and the ties are those of all trials.
        whole = choose(trials, budget)
    except InfeasibleBudget:
        return None
    points = {trial.number: trial for trial in (*whole.pareto, chosen)}
    pareto = sorted(points.values(), key=lambda t: t.measured.peak_gb if t.measured else 0.0)
    tied = (t for t in (whole.chosen, *whole.tied) if t is not chosen and t not in refused)
    return Selection(chosen=chosen, tied=tuple(tied), pareto=tuple(pareto))


def _changes_nothing(trial: Trial, trials: Sequence[Trial]) -> bool:
    return trial.number == 0 and trial.candidate == trials[0].candidate


def _confirmed(
    trial: Trial, budget: Budget, comparer: Comparer, workload: Workload
) -> Confirmation:
    measured = trial.measured
    assert measured is not None
    searched = _summary(
        measured.metric, measured.fidelity[measured.metric], measured.noise_floor, measured.loss
    )
    known = Confirmation(
        prompts=workload.prompts,
        seeds=workload.seeds,
        metric=measured.metric,
        searched=searched,
        found=None,
    )
    try:
        drawn = comparer.compare(trial.candidate, workload)
    except CandidateFailed as failure:
        return known.model_copy(update={"reasons": (str(failure),)})
    found = _summary(drawn.metric, drawn.fidelity[drawn.metric], drawn.noise_floor, drawn.loss)
    return known.model_copy(
        update={
            "noise_floor": drawn.noise_floor,
            "found": found,
            "fidelity": drawn.fidelity,
            "compile_s": drawn.compile_s,
            "reasons": tuple(_reasons(measured, searched, drawn, found, budget)),
        }
    )


def _summary(metric: str, score: MetricScore, floor: float, loss: float) -> LossSummary:
    losses = losses_of(metric, score)
    _, low, high = mean_interval(losses)
    return LossSummary(
        mean=loss,
        low=None if low is None else max(0.0, low - floor),
        high=None if high is None else max(0.0, high - floor),
        worst=max(0.0, max(losses) - floor),
    )


def _reasons(
    measured: Measured,
    searched: LossSummary,
    drawn: Comparison,
    found: LossSummary,
    budget: Budget,
) -> list[str]:
    reasons = []
    if found.low is not None and searched.high is not None and found.low > searched.high:
        reasons.append(
            f"{measured.metric} loss {found.text} lies above the {searched.text} of the search"
        )
    if budget.max_loss is not None and found.mean > budget.max_loss:
        reasons.append(f"its loss of {found.mean:.3g} misses the limit of {budget.max_loss:g}")
    lost = lost_prompts(drawn.fidelity)
    return [*reasons, lost] if lost else reasons
