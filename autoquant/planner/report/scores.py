"""What every metric says of every image."""

from __future__ import annotations

from dataclasses import dataclass

from autoquant.metrics.score import GUARDS, LOSS, MetricScore, losses_of
from autoquant.planner.measurement import Measured
from autoquant.planner.plan import Plan


@dataclass(frozen=True)
class MetricColumn:
    """One metric over the images of the plan.

    Attributes:
        name: The metric.
        decides: Whether the study minimised it.
        better: ``lower is better`` or ``higher is better``.
        mean: With the 95% interval where there is one.
        interval: In words, or nothing.
        worst_index: Which image is the worst.
    """

    name: str
    decides: bool
    better: str
    mean: str
    interval: str
    worst_index: int


@dataclass(frozen=True)
class ScoreRow:
    """One image: ``values`` has one text a metric, empty where nothing is known."""

    index: int
    prompt: str
    seed: int
    values: tuple[str, ...]


@dataclass(frozen=True)
class ScoreTable:
    """Metrics by images."""

    metrics: tuple[MetricColumn, ...]
    rows: tuple[ScoreRow, ...]

    def caption(self, index: int) -> str:
        """Seed and scores of one image in a line."""
        row = self.rows[index]
        scores = [
            f"{metric.name} {value}"
            for metric, value in zip(self.metrics, row.values, strict=True)
            if value
        ]
        return " · ".join([f"seed {row.seed}", *scores])


def score_table(plan: Plan, measured: Measured | None = None) -> ScoreTable:
    """The deciding metric first; images in the order of the workload.

    Args:
        plan: The plan.
        measured: Another candidate's figures; by default those of the plan.
    """
    measured = measured or plan.measured
    deciding = measured.metric
    scores = dict(sorted(measured.fidelity.items(), key=lambda item: item[0] != deciding))
    return ScoreTable(
        metrics=tuple(_column(name, score, name == deciding) for name, score in scores.items()),
        rows=tuple(
            ScoreRow(
                index=index,
                prompt=sample.prompt,
                seed=sample.seed,
                values=tuple(_value(score, index) for score in scores.values()),
            )
            for index, sample in enumerate(plan.workload.samples)
        ),
    )


def worst_first(plan: Plan) -> tuple[int, ...]:
    """Indices of the samples by falling loss of the deciding metric."""
    n_samples = len(plan.workload.samples)
    score = plan.measured.fidelity.get(plan.measured.metric)
    if score is None or len(score.per_image) != n_samples:
        return tuple(range(n_samples))
    losses = losses_of(plan.measured.metric, score)
    return tuple(sorted(range(n_samples), key=lambda index: (-losses[index], index)))


def _column(name: str, score: MetricScore, decides: bool) -> MetricColumn:
    has_interval = score.low is not None and score.high is not None
    return MetricColumn(
        name=name,
        decides=decides,
        better="higher is better" if _rises(name) else "lower is better",
        mean=f"{score.mean:.3g}",
        interval=f"{score.low:.3g} to {score.high:.3g}" if has_interval else "",
        worst_index=score.worst_index,
    )


def _rises(metric: str) -> bool:
    """Whether a better image has a higher value: then its loss falls as the value rises."""
    to_loss = LOSS.get(metric)
    return metric in GUARDS or (to_loss is not None and to_loss(1.0) < to_loss(-1.0))


def _value(score: MetricScore, index: int) -> str:
    return f"{score.per_image[index]:.3g}" if index < len(score.per_image) else ""
