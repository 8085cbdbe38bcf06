"""Race a candidate against the best one, image by image: stop it once it cannot become the plan.

Measuring on few prompts first, and on more only what may still win, is racing: O. Maron and
A. Moore, "Hoeffding Races", NIPS 1993; with a paired test, as here: M. Birattari et al., "A Racing
Algorithm for Configuring Metaheuristics", GECCO 2002.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import stdev
from typing import Any

from pydantic import BaseModel, ConfigDict
from scipy.special import stdtr

from autoquant.metrics.fidelity import summarized
from autoquant.metrics.latency import summarize
from autoquant.planner.budget import Budget
from autoquant.planner.measurement import Measured, Trial, image_losses
from autoquant.planner.selection import SAME_PEAK, is_feasible, rank

# Fewer images say too little of the others; one slow call may be the machine's.
_FEWEST_IMAGES = 3
_FEWEST_TIMED = 2
# The usual one of racing.
_SIGNIFICANCE = 0.05
# A loss below this is none; a ratio of losses needs some.
_NO_LOSS = 1e-6
# Losses that differ by less are a matter of which images are drawn.
_MARGIN = 1.1
# Ratios whose logarithms differ by less are equal.
_SAME = 1e-6


class Run(BaseModel):
    """What is known of a candidate while its images are drawn.

    Attributes:
        losses: The deciding loss of each image so far, the noise floor still in it.
        seconds: Wall seconds of each timed call so far.
        compile_s: Seconds that compiling took.
        peak_gb: Most memory in a call, in GiB.
        load_peak_gb: Most memory while loading, in GiB.
        noise_floor: The reference's loss against itself.
    """

    model_config = ConfigDict(frozen=True)

    losses: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()
    compile_s: float = 0.0
    peak_gb: float
    load_peak_gb: float
    noise_floor: float


class Race(BaseModel):
    """What candidates run against.

    Attributes:
        budget: The limits, and what is made least within them.
        best: The best candidate that keeps them, or ``None``.
        hardness: Losses of each image of some candidate that was drawn whole: what an image that
            is not drawn should lose, against one that is.
    """

    model_config = ConfigDict(frozen=True)

    budget: Budget
    best: Run | None
    hardness: tuple[float, ...]

    def verdict(self, run: Run) -> str | None:
        """Why ``run`` cannot become the plan, or ``None`` while it may, or too little is known."""
        if len(run.losses) < _FEWEST_IMAGES or not run.seconds:
            return None
        return self._missed(run) or (None if self.best is None else self._beaten(run, self.best))

    def whole_loss(self, losses: Sequence[float]) -> float:
        """The mean loss of all images, from those that were drawn."""
        return _mean(losses) * self.loss_scale(len(losses))

    def loss_scale(self, drawn: int) -> float:
        """The mean loss of all images, against that of the first ones.

        The ratio estimator (W. G. Cochran, "Sampling Techniques", 1977, chapter 6): the others are
        taken to be harder or easier than these by as much as they were for another candidate.
        """
        return _mean(self.hardness) / max(_mean(self.hardness[:drawn]), _NO_LOSS)

    def _missed(self, run: Run) -> str | None:
        """The limit that it misses for certain."""
        budget = self.budget
        if budget.vram_gb is not None and run.peak_gb > budget.vram_gb:
            return "it needs more memory than the limit"
        if budget.load_peak_gb is not None and run.load_peak_gb > budget.load_peak_gb:
            return "it needs more memory than the limit while loading"
        if budget.latency_s is not None and self._fastest_s(run) > budget.latency_s:
            return "each call took longer than the limit"
        if budget.max_loss is not None:
            most = budget.max_loss + run.noise_floor
            if _is_above(run.losses, [most * share for share in self._shares(len(run.losses))]):
                return "its images lose more than the limit"
        return None

    def _beaten(self, run: Run, best: Run) -> str | None:
        """What it is worse in than the best one, where that decides."""
        if self.budget.objective == "vram":
            is_larger = run.peak_gb > SAME_PEAK * best.peak_gb
            return "it needs more memory than the best one" if is_larger else None
        if self.budget.objective == "latency":
            usual_s = summarize(best.seconds).high + self._compile_share(best)
            is_slower = self._fastest_s(run) > usual_s
            return "it is slower than the best one" if is_slower else None
        # What loses no more than the reference does against itself is as good as any other.
        loses = self.whole_loss(run.losses) > run.noise_floor
        is_worse = loses and _is_above(run.losses, best.losses[: len(run.losses)])
        return "its images lose more than those of the best one" if is_worse else None

    def _fastest_s(self, run: Run) -> float:
        is_known = len(run.seconds) >= _FEWEST_TIMED
        return min(run.seconds) + self._compile_share(run) if is_known else 0.0

    def _compile_share(self, run: Run) -> float:
        calls = self.budget.calls_per_session
        return 0.0 if calls is None else run.compile_s / calls

    def _shares(self, drawn: int) -> list[float]:
        """How hard each of the first images is, against all of them."""
        mean = max(_mean(self.hardness), _NO_LOSS)
        return [loss / mean for loss in self.hardness[:drawn]]


def run_of(measured: Measured) -> Run:
    """A measurement as the race that it was."""
    return Run(
        losses=image_losses(measured),
        seconds=measured.latency_s.seconds or (measured.latency_s.median,),
        compile_s=measured.compile_s,
        peak_gb=measured.peak_gb,
        load_peak_gb=measured.load_peak_gb,
        noise_floor=measured.noise_floor,
    )


def race_for(trials: Iterable[Trial], budget: Budget) -> Race | None:
    """What the next candidate runs against; ``None`` until one was drawn whole that loses."""
    whole = [
        (trial, trial.measured)
        for trial in trials
        if trial.measured is not None and trial.measured.is_whole
    ]
    losing = [(trial, it) for trial, it in whole if max(run_of(it).losses) > _NO_LOSS]
    if not losing:
        return None
    fitting = [(trial, it) for trial, it in whole if is_feasible(it, budget)]
    best = min(fitting, key=lambda pair: rank(pair[0], budget), default=None)
    hardness = best if best in losing else min(losing, key=lambda pair: rank(pair[0], budget))
    assert hardness is not None
    return Race(
        budget=budget,
        best=None if best is None else run_of(best[1]),
        hardness=run_of(hardness[1]).losses,
    )


def stopped(measured: Measured, race: Race, images_a_call: int) -> Measured:
    """A whole measurement as far as it would have been made in ``race``."""
    whole = run_of(measured)
    # The first call warms up; it is looked at after each further one.
    for drawn in range(2 * images_a_call, len(whole.losses), images_a_call):
        calls = drawn // images_a_call - 1
        seconds = measured.latency_s.seconds[:calls] or (measured.latency_s.median,) * calls
        run = whole.model_copy(update={"losses": whole.losses[:drawn], "seconds": seconds})
        verdict = race.verdict(run)
        if verdict is not None:
            return _cut(measured, run, race, verdict)
    return measured


def _cut(measured: Measured, run: Run, race: Race, verdict: str) -> Measured:
    drawn, known = len(run.losses), measured.fidelity
    cut = {
        name: summarized(score.per_image[:drawn], lower_is_better=score.worst >= score.mean)
        for name, score in known.items()
    }
    return measured.model_copy(
        update={
            "fidelity": cut,
            "latency_s": summarize(run.seconds),
            **outcome(run, race, verdict),
        }
    )


def outcome(run: Run, race: Race, verdict: str) -> dict[str, Any]:
    """What a measurement says of a candidate that was stopped: fields of ``Measured``."""
    drawn = len(run.losses)
    return {
        "loss": max(0.0, race.whole_loss(run.losses) - run.noise_floor),
        "stopped": verdict,
        "undrawn_images": len(race.hardness) - drawn,
        "loss_scale": race.loss_scale(drawn),
    }


def is_enough(measured: Measured, race: Race | None) -> bool:
    """Whether a measurement answers what is asked: it is whole, or is stopped in this race too."""
    return measured.is_whole or (race is not None and race.verdict(run_of(measured)) is not None)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _is_above(losses: Sequence[float], others: Sequence[float]) -> bool:
    """Whether losses are higher than others, image by image, beyond doubt.

    Their mean has to be, and the logarithms of their ratios by Student's paired test: damage
    multiplies what an image loses.
    """
    if _mean(losses) <= _mean(others):
        return False
    ratios = [
        math.log(max(mine, _NO_LOSS) / max(other, _NO_LOSS))
        for mine, other in zip(losses, others, strict=True)
    ]
    margin = math.log(_MARGIN)
    if max(ratios) - min(ratios) < _SAME:
        return min(ratios) > margin
    error = stdev(ratios) / math.sqrt(len(ratios))
    t = (_mean(ratios) - margin) / error
    return bool(stdtr(len(ratios) - 1, -t) < _SIGNIFICANCE)
