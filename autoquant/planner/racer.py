"""Score images while they are drawn, and say when the candidate has lost its race."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from autoquant.metrics.fidelity import Metric
from autoquant.metrics.score import losses_from
from autoquant.planner.drawing import Images
from autoquant.planner.racing import Race, Run, outcome
from autoquant.planner.references import Reference


class Racer:
    """One candidate in a race.

    Attributes:
        values: The deciding metric's value of each image that was scored.
        run: The candidate when it was looked at last, or ``None`` before that.
        verdict: Why it was stopped, or ``None``.

    Args:
        race: What it runs against.
        reference: The images to compare with.
        metric: The deciding metric.
        run_after: The candidate's figures after so many timed calls; its losses are still missing.
    """

    def __init__(
        self,
        race: Race,
        reference: Reference,
        metric: Metric,
        run_after: Callable[[Sequence[float]], Run],
    ) -> None:
        self._race = race
        self._reference = reference
        self._metric = metric
        self._run_after = run_after
        self.values: list[float] = []
        self.run: Run | None = None
        self.verdict: str | None = None

    def stops(self, images: Sequence[Images], seconds: Sequence[float]) -> bool:
        """Whether the candidate cannot become the plan."""
        self.score(np.concatenate(images))
        losses = losses_from(self._metric.name, self.values)
        self.run = self._run_after(seconds).model_copy(update={"losses": losses})
        self.verdict = self._race.verdict(self.run)
        return self.verdict is not None

    @property
    def outcome(self) -> dict[str, Any]:
        """Fields of ``Measured`` where it was stopped; none where it was drawn whole."""
        if self.run is None or self.verdict is None:
            return {}
        return outcome(self.run, self._race, self.verdict)

    def score(self, images: Images) -> None:
        """Score those of the images so far that are new.

        Raises:
            CandidateFailed: One of them is degenerate, or cannot be scored.
        """
        self._reference.check(images)
        if len(images) == len(self.values):
            return
        new = self._reference.score_from(len(self.values), self._metric, images)
        self.values += new.per_image
