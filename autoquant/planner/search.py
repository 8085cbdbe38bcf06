"""The Optuna study over whole candidates: fidelity is the objective, the budget the constraints."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping

from optuna.trial import TrialState

from autoquant.errors import CandidateFailed, MeasuredElsewhere
from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.decomposition import Decomposition
from autoquant.planner.evaluator import Evaluator
from autoquant.planner.layer_study import LayerStudy
from autoquant.planner.measurement import Estimate, Trial
from autoquant.planner.others import Nobody, Others
from autoquant.planner.parameters import (
    is_in_space,
    neighbours,
    number_of_candidates,
    refusal,
    unquantized,
    usual_candidates,
)
from autoquant.planner.progress import OnProgress, Progress, silent
from autoquant.planner.pruning import Bound, Pruning
from autoquant.planner.racing import Race, race_for
from autoquant.planner.sampler import Sampler
from autoquant.planner.search_result import SearchResult
from autoquant.planner.search_settings import SearchSettings
from autoquant.planner.selection import is_feasible, rank
from autoquant.planner.sensitivity import extended_space
from autoquant.search_spaces.scheme import Choice
from autoquant.search_spaces.space import SearchSpace

# After so many trials that were no better, the groups of layers of the best one are looked into.
_STALE_TRIALS = 3
# Where most is ruled out, what could fit may be out of the sampler's sight.
_MOST_ASKED_IN_VAIN = 300


class Search:
    """One study over a space, answered by an evaluator."""

    def __init__(
        self,
        evaluator: Evaluator,
        space: SearchSpace,
        budget: Budget,
        settings: SearchSettings,
        runtime: Runtime,
        on_progress: OnProgress = silent,
        bound: Bound | None = None,
        layers: LayerStudy | None = None,
        others: Others | None = None,
    ) -> None:
        self._layers = layers
        self._others = others or Nobody()
        self._evaluator = evaluator
        self._space = space
        self._budget = budget
        self._settings = settings
        self._runtime = runtime
        self._on_progress = on_progress
        self._pruning = Pruning(bound, budget, unquantized(space, runtime))
        self._finished: dict[str, Trial] = {}
        self._asked_in_vain = 0
        self._size = number_of_candidates(space)
        self._started = time.monotonic()
        self._random = random.Random(settings.seed)
        self._decomposition = Decomposition(space, runtime, budget)
        self._promising: Candidate | None = None
        self._sampler = Sampler(settings.seed, runtime, budget)

    def run(self) -> SearchResult:
        """Measure candidates until none promises to be better than the best one.

        The trials, the time or the space may be used up before that, and Ctrl-C ends it too.
        """
        interrupted = converged = False
        try:
            while not self._is_over():
                self._take_over()
                under_way = self._under_way()
                taken = self._seen | under_way
                if len(self._finished) + len(under_way) >= self._most_trials():
                    self._others.wait()
                    continue
                self._promising = self._decomposition.propose(taken, self._may_fit)
                out_of_promises = self._decomposition.is_out_of_promises
                if (out_of_promises or self._is_stale()) and self._look_inside():
                    continue
                if out_of_promises:
                    if under_way:  # whose outcome may change that
                        self._others.wait()
                        continue
                    converged = True
                    break
                if self._promising is not None:
                    self._enqueue(self._promising)
                if not self._try_one():
                    self._enqueue_something_new(taken)
            self._measure_what_needs_least()
        except KeyboardInterrupt:
            interrupted = True
        return SearchResult(
            trials=tuple(self._finished.values()),
            seconds=time.monotonic() - self._started,
            interrupted=interrupted,
            converged=converged,
            pruned=tuple(self._pruning.trials.values()),
            sensitivity=() if self._layers is None else tuple(self._layers.sensitivities),
        )

    @property
    def _seen(self) -> dict[str, Trial]:
        return self._finished | self._pruning.trials

    def _is_over(self) -> bool:
        exhausted = self._asked_in_vain >= _MOST_ASKED_IN_VAIN
        return self._trials_left() <= 0 or exhausted or self._is_late()

    def _trials_left(self) -> int:
        return self._most_trials() - len(self._finished)

    def _is_late(self) -> bool:
        limit = self._settings.time_limit_s
        return limit is not None and time.monotonic() - self._started >= limit

    def _is_stale(self) -> bool:
        """Whether the best candidate has not been beaten for a while."""
        best = self._best() if self._finished else None
        return best is not None and len(self._finished) - 1 - best.number >= _STALE_TRIALS

    def _look_inside(self) -> bool:
        """Measure groups of layers in the best candidate; whether there is more to try now."""
        best = self._best()
        if self._budget.objective != "loss":
            return False
        if self._layers is None or best is None or best.measured is None:
            return False
        decomposition = self._decomposition
        found = self._layers.look(
            best.candidate,
            best.measured.loss,
            decomposition.loss_alone,
            self._trials_left(),
            self._is_late,
        )
        if not found:
            return False
        estimates: list[Estimate] = []
        for sensitivity in found:
            losses = [
                decomposition.loss_alone(sensitivity.component, Choice(scheme=scheme))
                for scheme in (sensitivity.scheme, sensitivity.raised)
                if scheme is not None
            ]
            estimates += sensitivity.estimates(*losses)
            self._space = extended_space(self._space, sensitivity)
        decomposition.extend(self._space, estimates)
        self._size = number_of_candidates(self._space)
        return True

    def _most_trials(self) -> int:
        possible = self._size - len(self._pruning.trials)
        return min(self._settings.trials, possible)

    def _take_over(self) -> None:
        """Make trials of what others have measured, and measure what a dead one left."""
        for candidate in self._others.finished():
            if candidate.key in self._seen:
                continue
            if is_in_space(candidate, self._space):
                self._enqueue(candidate, again=True)
                self._try_one()
            else:  # another process has looked into its layers
                self._finished[candidate.key] = self._measure(candidate)
        for candidate in self._others.abandoned():
            left = candidate.key not in self._seen and self._trials_left() > 0
            if left and is_in_space(candidate, self._space):
                self._enqueue(candidate, again=True)
                self._try_one()

    def _under_way(self) -> dict[str, Trial]:
        """What others are measuring, as trials from which nothing can be expected."""
        return {
            candidate.key: Trial(number=len(self._finished), candidate=candidate)
            for candidate in self._others.under_way()
            if candidate.key not in self._seen
        }

    def _try_one(self) -> bool:
        """Ask, measure, tell; returns whether the candidate was new."""
        proposal, candidate = self._sampler.ask(self._space)
        if refusal(candidate, self._space) is not None:
            self._sampler.withdraw(proposal, TrialState.PRUNED)
            return False
        known = self._seen.get(candidate.key)
        trial = known or self._pruning.rule_out(candidate, self._finished)
        if trial is not None:
            self._asked_in_vain += 1
            self._sampler.tell(proposal, trial)
            return known is None
        try:
            trial = self._measure(candidate)
        except MeasuredElsewhere:
            self._sampler.withdraw(proposal, TrialState.FAIL)
            return False
        self._sampler.tell(proposal, trial)
        self._finished[candidate.key] = trial
        self._asked_in_vain = 0
        self._pruning.reconsider(self._finished)
        if len(self._finished) == 1:
            self._rule_out_usual()
        self._report(trial)
        return True

    def _measure_what_needs_least(self) -> None:
        """Where nothing fits, measure the smallest that was ruled out: it says what would."""
        if not self._pruning.trials or self._best() is not None or self._is_late():
            return
        peaks = [t.measured.peak_gb for t in self._finished.values() if t.measured is not None]
        least = min(self._pruning.trials.values(), key=lambda trial: trial.bound_gb or math.inf)
        if least.bound_gb is not None and least.bound_gb < min(peaks, default=math.inf):
            del self._pruning.trials[least.candidate.key]
            trial = self._measure(least.candidate)
            self._finished[least.candidate.key] = trial
            self._report(trial)

    def _may_fit(self, candidate: Candidate) -> bool:
        return self._pruning.may_fit(candidate, self._finished)

    def _enqueue(self, candidate: Candidate, *, again: bool = False) -> None:
        self._sampler.enqueue(candidate, self._space, again=again)

    def _rule_out_usual(self) -> None:
        """What a person would try but cannot fit: they would ask why it was not."""
        for candidate in usual_candidates(self._space, self._runtime):
            if not self._may_fit(candidate):
                self._enqueue(candidate)
                self._try_one()

    def _enqueue_something_new(self, taken: Mapping[str, Trial]) -> None:
        """The sampler proposes the same again: look around the trials so far, the best first."""
        for trial in sorted(self._finished.values(), key=lambda trial: rank(trial, self._budget)):
            unseen = [
                candidate
                for candidate in neighbours(trial.candidate, self._space)
                if candidate.key not in taken
                and candidate.key not in self._seen
                and self._may_fit(candidate)
            ]
            if unseen:
                self._enqueue(self._random.choice(unseen))
                return

    def _measure(self, candidate: Candidate) -> Trial:
        number = len(self._finished)
        try:
            measured = self._evaluator.measure(candidate, self._race())
        except MeasuredElsewhere:
            raise
        except CandidateFailed as failure:
            return Trial(
                number=number,
                candidate=candidate,
                failure=str(failure),
                bound_gb=self._proven(failure.bound_gb),
            )
        prediction = self._decomposition.prediction if candidate == self._promising else None
        return Trial(number=number, candidate=candidate, measured=measured, predicted=prediction)

    def _race(self) -> Race | None:
        """What the next candidate runs against, where losing ones are stopped early."""
        if not self._settings.stop_early:
            return None
        return race_for(self._finished.values(), self._budget)

    def _proven(self, bound_gb: float | None) -> float | None:
        """What was not enough, if it is as much as the budget allows: less proves nothing."""
        limit_gb = self._budget.vram_gb
        return bound_gb if bound_gb and limit_gb and bound_gb >= limit_gb else None

    def _report(self, trial: Trial) -> None:
        elapsed = time.monotonic() - self._started
        done = len(self._finished)
        total = self._most_trials()
        self._on_progress(
            Progress("search", done, total, trial, self._best(), elapsed, self._seconds_left(total))
        )

    def _seconds_left(self, total: int) -> float | None:
        # The first trial is the reference, which was measured before the search.
        done = len(self._finished)
        if done < 2:
            return None
        elapsed = time.monotonic() - self._started
        left = elapsed / (done - 1) * (total - done)
        if self._settings.time_limit_s is None:
            return left
        return min(left, max(0.0, self._settings.time_limit_s - elapsed))

    def _best(self) -> Trial | None:
        best = min(self._finished.values(), key=lambda trial: rank(trial, self._budget))
        fits = best.measured is not None and is_feasible(best.measured, self._budget)
        return best if fits else None


def search(
    evaluator: Evaluator,
    space: SearchSpace,
    budget: Budget,
    settings: SearchSettings | None = None,
    runtime: Runtime | None = None,
    on_progress: OnProgress = silent,
    bound: Bound | None = None,
    layers: LayerStudy | None = None,
    others: Others | None = None,
) -> SearchResult:
    """Search ``space`` for candidates of least loss that keep ``budget``.

    The same seed and the same measurements give the same trials in the same order. A candidate
    whose ``bound`` misses the memory budget is not measured; without one, everything is. With
    ``layers``, the space is extended by the groups of layers that measuring says to keep.
    """
    return Search(
        evaluator,
        space,
        budget,
        settings or SearchSettings(),
        runtime or Runtime(),
        on_progress,
        bound,
        layers,
        others,
    ).run()
