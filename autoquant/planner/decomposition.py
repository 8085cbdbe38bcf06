"""Propose candidates: components one at a time first, then the wholes that they promise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from math import prod

from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.measurement import Trial
from autoquant.planner.parameters import (
    one_a_width,
    refusal,
    uniform_candidates,
    unquantized,
    with_one_lever,
)
from autoquant.planner.prediction import Part, PartsModel
from autoquant.planner.selection import rank
from autoquant.search_spaces.scheme import NONE, Choice
from autoquant.search_spaces.space import SearchSpace

# Each whole candidate that is predicted costs microseconds; beyond this many the components' least
# promising parts are left out.
_MOST_COMBINATIONS = 200_000


class Decomposition:
    """What to measure next, from what has been measured.

    1. The unquantized pipeline, then one scheme of each width on every component, so that a search
       that is cut short has something that fits.
    2. Parts: on the largest component alone each scheme, on the others one of each width.
    3. The whole candidates that the parts predict to be better than the best one measured, the most
       promising first.
    4. Around the best one: its sensitive layers left out, its projections fused.
    5. The parts that step 2 left out, and what they promise.
    """

    def __init__(self, space: SearchSpace, runtime: Runtime, budget: Budget) -> None:
        self._space = space
        self._runtime = runtime
        self._budget = budget
        self._unquantized = unquantized(space, runtime)
        self._opening = (
            self._unquantized,
            *(c for c in uniform_candidates(space, runtime) if refusal(c, space) is None),
        )

    def propose(self, finished: Mapping[str, Trial]) -> Candidate | None:
        """The next candidate, or ``None`` if nothing better can be predicted."""
        first_parts, later_parts = self._parts(finished)
        opening = _first_unmeasured((*self._opening, *first_parts), finished)
        if opening is not None:
            return opening
        reference = finished[self._unquantized.key].measured
        if reference is None:
            return None
        best = min(finished.values(), key=lambda trial: rank(trial, self._budget))
        model = PartsModel(reference, finished.values())
        return (
            self._promising(model, best, finished)
            or self._around(best, finished)
            or _first_unmeasured(later_parts, finished)
        )

    def _parts(self, finished: Mapping[str, Trial]) -> tuple[list[Candidate], list[Candidate]]:
        """Candidates that change one component: those to measure early, and the others."""
        early: list[Candidate] = []
        late: list[Candidate] = []
        for place, name in enumerate(self._by_size(finished)):
            schemes = [s for s in self._space.components[name].schemes if s != NONE]
            chosen = schemes if place == 0 else one_a_width(schemes)
            for scheme in schemes:
                plainest = self._space.components[name].plainest(scheme)
                part = self._with(self._unquantized, name, plainest)
                if refusal(part, self._space) is not None:
                    continue
                (early if scheme in chosen else late).append(part)
        return early, late

    def _by_size(self, finished: Mapping[str, Trial]) -> list[str]:
        reference = finished.get(self._unquantized.key)
        measured = reference.measured if reference else None
        sizes = measured.component_gb if measured else {}
        return sorted(self._space.components, key=lambda name: -sizes.get(name, 0.0))

    def _promising(
        self, model: PartsModel, best: Trial, finished: Mapping[str, Trial]
    ) -> Candidate | None:
        """The most promising whole that is not measured and should beat the best one."""
        to_beat = rank(best, self._budget)[:2]
        found: tuple[tuple[float, float, float], Candidate] | None = None
        for names, parts in self._combinations(model):
            predicted = model.combine([part for part in parts if part.choice != Choice()])
            promise = (predicted.excess(self._budget), predicted.loss, predicted.peak_gb)
            if promise[:2] >= to_beat or (found is not None and promise >= found[0]):
                continue
            candidate = self._unquantized.model_copy(
                update={
                    "components": {
                        name: part.choice for name, part in zip(names, parts, strict=True)
                    }
                }
            )
            if candidate.key not in finished and refusal(candidate, self._space) is None:
                found = promise, candidate
        return None if found is None else found[1]

    def _combinations(self, model: PartsModel) -> Iterator[tuple[list[str], Sequence[Part]]]:
        names = list(self._space.components)
        options = [list(model.parts(name)) for name in names]
        while prod(map(len, options)) > _MOST_COMBINATIONS:
            longest = max(options, key=len)
            longest.remove(max(longest, key=lambda part: part.loss))
        for parts in product(*options):
            yield names, parts

    def _around(self, best: Trial, finished: Mapping[str, Trial]) -> Candidate | None:
        """The best candidate with sensitive layers left out, fused, or one lever pulled."""
        for name in self._by_size(finished):
            component = self._space.components[name]
            choice = best.candidate.components[name]
            sets = ((),) if choice.scheme == NONE else component.distinct_exclusions(choice.scheme)
            for exclusions, fuse_qkv in product(sets, component.fuse_qkv):
                changed = choice.model_copy(update={"exclusions": exclusions, "fuse_qkv": fuse_qkv})
                candidate = self._with(best.candidate, name, changed)
                if candidate.key not in finished and refusal(candidate, self._space) is None:
                    return candidate
        return _first_unmeasured(with_one_lever(best.candidate, self._space), finished)

    @staticmethod
    def _with(candidate: Candidate, name: str, choice: Choice) -> Candidate:
        return candidate.model_copy(update={"components": {**candidate.components, name: choice}})


def _first_unmeasured(
    candidates: Iterable[Candidate], finished: Mapping[str, Trial]
) -> Candidate | None:
    return next((candidate for candidate in candidates if candidate.key not in finished), None)
