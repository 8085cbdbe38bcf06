"""Predict whole candidates from components that were measured one at a time.

Memory is what each component holds plus the largest activations of any stage; latency differences
add; losses combine as a p-norm, with p fitted to the whole candidates measured so far: 1 where
damages add, 2 where they are independent, more where the worst one decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate
from autoquant.planner.measurement import Measured, Trial
from autoquant.search_spaces.scheme import Choice

_EXPONENTS = (1.0, 1.25, 1.5, 2.0, 3.0)
# Independent damages, until whole candidates say otherwise.
_USUAL_EXPONENT = 2.0
_FEWEST_WHOLES = 3


@dataclass(frozen=True)
class Predicted:
    """What a whole candidate should cost.

    Attributes:
        loss: Deciding metric as a loss.
        peak_gb: Most memory in a call, in GiB.
        latency_s: Wall seconds of a call.
    """

    loss: float
    peak_gb: float
    latency_s: float

    def excess(self, budget: Budget) -> float:
        """Sum of the missed shares of the limits; 0 is feasible."""
        return budget.missed_share(
            {"vram_gb": self.peak_gb, "latency_s": self.latency_s, "max_loss": self.loss}
        )


@dataclass(frozen=True)
class Part:
    """One component's choice, measured with everything else untouched."""

    choice: Choice
    saved_gb: float
    activations_gb: float
    extra_s: float
    loss: float

    def beats(self, other: Part) -> bool:
        """Whether ``other`` is no better in anything and worse in something."""
        ours = (-self.saved_gb, self.activations_gb, self.extra_s, self.loss)
        theirs = (-other.saved_gb, other.activations_gb, other.extra_s, other.loss)
        return ours != theirs and all(a <= b for a, b in zip(ours, theirs, strict=True))


class PartsModel:
    """The parts measured so far, and what they say of candidates made of them."""

    def __init__(self, reference: Measured, trials: Iterable[Trial]) -> None:
        self._reference = reference
        self._parts: dict[tuple[str, Choice], Part] = {}
        wholes: list[Trial] = []
        for trial in trials:
            changed = changed_components(trial.candidate)
            if trial.measured is None or not changed:
                continue
            if len(changed) == 1:
                (name, choice), *_ = changed.items()
                self._parts[name, choice] = _part(choice, trial.measured, reference)
            else:
                wholes.append(trial)
        self.exponent = self._fit_exponent(wholes)

    def parts(self, component: str) -> tuple[Part, ...]:
        """The parts of one component that no other part beats, the untouched one first."""
        untouched = Part(Choice(), 0.0, self._activations(self._reference), 0.0, 0.0)
        parts = [untouched, *(p for (name, _), p in self._parts.items() if name == component)]
        return tuple(p for p in parts if p is untouched or not any(o.beats(p) for o in parts))

    def predict(self, candidate: Candidate) -> Predicted | None:
        """Predict a candidate; ``None`` if one of its parts was not measured."""
        parts = self._parts_of(candidate)
        return None if parts is None else self.combine(parts)

    def combine(self, parts: Sequence[Part]) -> Predicted:
        """Predict the candidate made of ``parts``, one for each changed component."""
        reference = self._reference
        activations = max(
            (part.activations_gb for part in parts), default=self._activations(reference)
        )
        return Predicted(
            loss=_norm([part.loss for part in parts], self.exponent),
            peak_gb=reference.weights_gb - sum(part.saved_gb for part in parts) + activations,
            latency_s=max(0.0, reference.latency_s.median + sum(part.extra_s for part in parts)),
        )

    def _parts_of(self, candidate: Candidate) -> list[Part] | None:
        changed = changed_components(candidate)
        parts = [self._parts.get(item) for item in changed.items()]
        found = [part for part in parts if part is not None]
        return found if len(found) == len(parts) else None

    def _fit_exponent(self, wholes: Sequence[Trial]) -> float:
        known = [
            ([part.loss for part in parts], trial.measured.loss)
            for trial in wholes
            if trial.measured is not None
            and trial.measured.loss > 0
            and (parts := self._parts_of(trial.candidate)) is not None
            and sum(part.loss > 0 for part in parts) > 1
        ]
        if len(known) < _FEWEST_WHOLES:
            return _USUAL_EXPONENT

        def misfit(exponent: float) -> float:
            return sum(abs(math.log(_norm(losses, exponent) / whole)) for losses, whole in known)

        return min(_EXPONENTS, key=misfit)

    @staticmethod
    def _activations(measured: Measured) -> float:
        return measured.peak_gb - measured.weights_gb


def changed_components(candidate: Candidate) -> Mapping[str, Choice]:
    """The components that ``candidate`` does not leave as they are."""
    return {name: c for name, c in candidate.components.items() if c != Choice()}


def _part(choice: Choice, alone: Measured, reference: Measured) -> Part:
    return Part(
        choice=choice,
        saved_gb=reference.weights_gb - alone.weights_gb,
        activations_gb=alone.peak_gb - alone.weights_gb,
        extra_s=alone.latency_s.median - reference.latency_s.median,
        loss=alone.loss,
    )


def _norm(losses: Sequence[float], exponent: float) -> float:
    return math.pow(math.fsum(math.pow(loss, exponent) for loss in losses), 1 / exponent)
