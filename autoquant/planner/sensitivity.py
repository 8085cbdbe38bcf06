"""How much each group of layers hurts, and which groups that says to keep: plain data, no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from autoquant.planner.measurement import Estimate
from autoquant.search_spaces.layer_groups import smallest_exclusions
from autoquant.search_spaces.scheme import Choice
from autoquant.search_spaces.space import SearchSpace

# Groups damage the image independently of each other, as components do.
_EXPONENT = 2.0


class GroupLoss(BaseModel):
    """One group of layers, quantized while everything else was left as it is.

    Attributes:
        group: Like ``attention, early blocks``.
        layers: Exact paths of its linear layers.
        weights: How many weights they hold.
        saved_gb: What quantizing it saves, in GiB.
        loss: Deciding metric as a loss; ``None`` if it could not be drawn.
        failure: Why not.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    group: str
    layers: tuple[str, ...]
    weights: int
    saved_gb: float = 0.0
    loss: float | None = None
    failure: str | None = None

    @property
    def loss_per_gb(self) -> float:
        """What keeping the group removes for each GiB that it costs; infinite where it must be."""
        if self.loss is None:
            return math.inf
        # A group that saves nothing is kept before any other that does no more harm.
        return self.loss / self.saved_gb if self.saved_gb > 0 else math.inf


class Sensitivity(BaseModel):
    """The groups of one component under one scheme, those to keep first at the front.

    Attributes:
        prompts: How many prompts each group was drawn with.
        steps: Denoising steps.
        metric: The deciding metric.
        component_gb: What the component holds unquantized, in GiB.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    component: str
    scheme: str
    prompts: int
    steps: int
    metric: str
    component_gb: float
    groups: tuple[GroupLoss, ...]

    def kept_sets(self) -> tuple[tuple[str, ...], ...]:
        """Nested exclusions: the group with the most loss a byte, then each with the next one."""
        every_layer = [path for group in self.groups for path in group.layers]
        return tuple(
            smallest_exclusions(_layers(self.groups[:count]), every_layer)
            for count in range(1, len(self.groups))
        )

    def estimates(self, whole_loss: float) -> tuple[Estimate, ...]:
        """What the component should hold and lose, alone, with each of the sets kept.

        Losses of groups combine as those of components do, scaled so that all of them together have
        the loss of the whole component; bytes are what the groups hold.

        Args:
            whole_loss: Of the component under the scheme, with nothing kept and all else untouched.
        """
        losses = [0.0 if group.loss is None else group.loss for group in self.groups]
        if not _norm(losses) > 0:
            return ()
        return tuple(
            Estimate(
                component=self.component,
                choice=Choice(scheme=self.scheme, exclusions=exclusions),
                component_gb=self.component_gb
                - sum(group.saved_gb for group in self.groups[count:]),
                loss=whole_loss * _norm(losses[count:]) / _norm(losses),
            )
            for count, exclusions in enumerate(self.kept_sets(), start=1)
        )


def extended_space(space: SearchSpace, sensitivity: Sensitivity) -> SearchSpace:
    """``space`` with the sets that ``sensitivity`` says to try."""
    component = space.components[sensitivity.component].with_measured_sets(
        sensitivity.scheme, sensitivity.kept_sets()
    )
    components = {**space.components, sensitivity.component: component}
    return space.model_copy(update={"components": components})


def most_harmful_first(groups: Sequence[GroupLoss]) -> tuple[GroupLoss, ...]:
    """By the loss that keeping a group removes for each byte, then by its loss."""
    return tuple(sorted(groups, key=lambda group: (-group.loss_per_gb, -(group.loss or 0.0))))


def _layers(groups: Sequence[GroupLoss]) -> list[str]:
    return [path for group in groups for path in group.layers]


def _norm(losses: Sequence[float]) -> float:
    return math.pow(math.fsum(math.pow(loss, _EXPONENT) for loss in losses), 1 / _EXPONENT)
