"""Measure the groups of layers inside the components whose loss matters to the best candidate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

from autoquant.errors import CandidateFailed
from autoquant.planner.candidate import Candidate
from autoquant.planner.evaluator import Comparer
from autoquant.planner.measurement import Measured
from autoquant.planner.parameters import unquantized
from autoquant.planner.request import Preparation
from autoquant.planner.sensitivity import GroupLoss, Sensitivity, most_harmful_first
from autoquant.planner.workload import Workload
from autoquant.search_spaces.layer_groups import LayerGroup, smallest_exclusions
from autoquant.search_spaces.scheme import NONE, Choice
from autoquant.search_spaces.wider import next_wider

# Components and schemes that are looked into in one search.
_MOST_STUDIES = 3
# A component that has less than this share of the best candidate's loss is not worth its groups.
_LEAST_SHARE = 0.2
_FEWEST_TRIALS = 3
_PROMPTS = 4
_FEWEST_STEPS = 8


def screening_workload(workload: Workload) -> Workload:
    """A cheap version of ``workload``: few prompts, one seed, half of the steps but no fewer than
    eight."""
    steps = min(workload.steps, max(_FEWEST_STEPS, workload.steps // 2))
    return workload.model_copy(
        update={
            "prompts": workload.prompts[:_PROMPTS],
            "seeds": workload.seeds[:1],
            "steps": steps,
            "batch_size": min(workload.batch_size, _PROMPTS),
        }
    )


class LayerStudy:
    """Looks into components, one scheme at a time, each once.

    Attributes:
        sensitivities: What was found, in order.

    Args:
        order: Shuffles the groups, so that several processes that share what they draw meet
            halfway; without it they are drawn in the order of the layers.
    """

    def __init__(
        self,
        comparer: Comparer,
        groups: Mapping[str, Sequence[LayerGroup]],
        workload: Workload,
        unquantized: Candidate,
        reference: Measured,
        order: Random | None = None,
    ) -> None:
        self._order = order
        self._comparer = comparer
        self._groups = groups
        self._workload = screening_workload(workload)
        self._unquantized = unquantized
        self._cost = _draws(self._workload) / (_draws(workload) + workload.steps)
        self._looked: set[tuple[str, str]] = set()
        self._reference = reference
        self.sensitivities: list[Sensitivity] = []

    def look(
        self,
        best: Candidate,
        loss: float,
        loss_alone: Callable[[str, Choice], float],
        trials_left: int,
        is_over: Callable[[], bool],
    ) -> list[Sensitivity]:
        """Look into what ``best`` quantizes; what is found is new.

        A component is passed over where its loss hardly counts, and where so few trials are left
        that its groups would cost more than what could be tried afterwards.

        Args:
            best: The candidate to improve.
            loss: Its loss.
            loss_alone: What a component's choice loses with all others untouched.
            trials_left: Candidates that may still be measured.
            is_over: Whether the time is used up.
        """
        found = []
        for component, scheme in self._worth_it(best, loss, loss_alone):
            groups = self._groups_of(component, scheme)
            if trials_left < max(_FEWEST_TRIALS, len(groups) * self._cost) or is_over():
                continue
            self._looked.add((component, scheme))
            sensitivity = self._study(component, scheme, groups, is_over)
            if sensitivity is not None:
                found.append(sensitivity)
        self.sensitivities += found
        return found

    def _worth_it(
        self, best: Candidate, loss: float, loss_alone: Callable[[str, Choice], float]
    ) -> list[tuple[str, str]]:
        losses = {
            (name, choice.scheme): loss_alone(name, Choice(scheme=choice.scheme))
            for name, choice in best.components.items()
            if choice.scheme != NONE
            and (name, choice.scheme) not in self._looked
            and len(self._groups_of(name, choice.scheme)) > 1
        }
        worth = [key for key, alone in losses.items() if alone > _LEAST_SHARE * loss]
        room = max(0, _MOST_STUDIES - len(self._looked))
        return sorted(worth, key=lambda key: -losses[key])[:room]

    def _groups_of(self, component: str, scheme: str) -> list[LayerGroup]:
        return [group for group in self._groups.get(component, ()) if scheme in group.schemes]

    def _ordered(self, groups: Sequence[LayerGroup]) -> Sequence[LayerGroup]:
        return groups if self._order is None else self._order.sample(groups, len(groups))

    def _study(
        self,
        component: str,
        scheme: str,
        groups: Sequence[LayerGroup],
        is_over: Callable[[], bool],
    ) -> Sensitivity | None:
        every_layer = [path for group in self._groups[component] for path in group.layers]
        losses = []
        for group in self._ordered(groups):
            if is_over():
                return None
            others = set(every_layer) - set(group.layers)
            choice = Choice(scheme=scheme, exclusions=smallest_exclusions(others, every_layer))
            # Compiling each group would cost more than it tells.
            candidate = self._unquantized.uncompiled.model_copy(
                update={"components": {**self._unquantized.components, component: choice}}
            )
            alone = GroupLoss(group=group.name, layers=group.layers, weights=group.weights)
            try:
                drawn = self._comparer.compare(candidate, self._workload, timed=False)
            except CandidateFailed as failure:
                losses.append(alone.model_copy(update={"failure": str(failure)}))
                continue
            saved_gb = self._reference.component_gb[component] - drawn.component_gb[component]
            losses.append(alone.model_copy(update={"saved_gb": saved_gb, "loss": drawn.loss}))
        return Sensitivity(
            component=component,
            scheme=scheme,
            prompts=len(self._workload.prompts),
            steps=self._workload.steps,
            metric=self._reference.metric,
            component_gb=self._reference.component_gb[component],
            groups=most_harmful_first(losses),
            raised=next_wider(scheme, _in_all(groups)),
        )


def _in_all(groups: Sequence[LayerGroup]) -> list[str]:
    """The schemes under which every group has a layer that can be quantized, in their order."""
    return [
        scheme for scheme in groups[0].schemes if all(scheme in group.schemes for group in groups)
    ]


def layer_study(
    comparer: Comparer, prepared: Preparation, order: Random | None = None
) -> LayerStudy:
    """A study of the pipeline that was prepared."""
    return LayerStudy(
        comparer,
        prepared.layer_groups,
        prepared.workload,
        unquantized(prepared.space, prepared.runtime),
        prepared.reference.measured,
        order,
    )


def _draws(workload: Workload) -> int:
    return len(workload.samples) * workload.steps
