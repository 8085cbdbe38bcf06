"""How much each group of layers hurts, and which groups that says to keep: plain data, no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ConfigDict

from autoquant.planner.measurement import Estimate
from autoquant.search_spaces.backends import backend
from autoquant.search_spaces.layer_groups import smallest_exclusions
from autoquant.search_spaces.scheme import Choice, Override, Scheme
from autoquant.search_spaces.space import SearchSpace

# Groups damage the image independently of each other, as components do.
_EXPONENT = 2.0
# How far the logarithm of a loss may be off that was put together from groups of layers, and of one
# whose groups lose in a wider precision what its whole says of them.
_LOG_LOSS_SD = 0.3
_LOG_LOSS_SD_RAISED = 0.5
# Scales take up to about this share of a quantized weight, more or less in another precision.
_SCALES = 0.1
_BITS_A_GIB = 8 * 2**30
# A group that saves less than this share of its component costs nothing to leave out.
_NEXT_TO_NOTHING = 0.01


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


_Groups = tuple[GroupLoss, ...]


class Sensitivity(BaseModel):
    """The groups of one component under one scheme, those to keep first at the front.

    Attributes:
        prompts: How many prompts each group was drawn with.
        steps: Denoising steps.
        metric: The deciding metric.
        component_gb: What the component holds unquantized, in GiB.
        raised: The scheme that groups may get instead of being left alone: the next wider precision
            of the same backend, where it can mix them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    component: str
    scheme: str
    prompts: int
    steps: int
    metric: str
    component_gb: float
    groups: tuple[GroupLoss, ...]
    raised: str | None = None

    def kept_sets(self) -> tuple[tuple[str, ...], ...]:
        """Nested exclusions: the group with the most loss a byte, then each with the next one."""
        every_layer = [path for group in self.groups for path in group.layers]
        return tuple(
            smallest_exclusions(_layers(self.groups[:count]), every_layer)
            for count in range(1, len(self.groups))
        )

    def raised_choices(self) -> tuple[Choice, ...]:
        """The same groups in the next wider precision instead, the others as they were.

        Those that hold next to nothing are left out all the same.
        """
        every_layer = [path for group in self.groups for path in group.layers]
        choices = []
        for kept, raised, _ in self._raised_sets():
            assert self.raised is not None
            override = Override(
                scheme=self.raised, layers=smallest_exclusions(_layers(raised), every_layer)
            )
            exclusions = smallest_exclusions(_layers(kept), every_layer)
            choices.append(Choice(scheme=self.scheme, exclusions=exclusions, overrides=(override,)))
        return tuple(choices)

    def _raised_sets(self) -> Iterator[tuple[_Groups, _Groups, _Groups]]:
        """For each choice, the groups that are left out, raised, and as they were."""
        least_gb = _NEXT_TO_NOTHING * self.component_gb
        last = len(self.groups) - 1
        for count in range(1, last + 1 if self.raised else 0):
            front, rest = self.groups[:count], self.groups[count:]
            raised = tuple(group for group in front if group.saved_gb >= least_gb)
            # What follows and holds next to nothing is taken along in the next set.
            if raised and (count == last or rest[0].saved_gb >= least_gb):
                kept = tuple(group for group in front if group.saved_gb < least_gb)
                yield kept, raised, rest

    def raised_groups(self, choice: Choice) -> tuple[str, ...]:
        """Names of the groups that ``choice`` has in another precision than the measured one."""
        return tuple(group.group for group in self.groups if self.raised_to(group, choice))

    def raised_to(self, group: GroupLoss, choice: Choice) -> str:
        """The precision that ``choice`` has for all of ``group`` instead; empty if it has none."""
        schemes = {choice.scheme_at(path) for path in group.layers}
        if choice.scheme != self.scheme or self.scheme in schemes or len(schemes) > 1:
            return ""
        return Scheme.parse(schemes.pop()).precision

    def estimates(self, whole_loss: float, raised_loss: float = 0.0) -> tuple[Estimate, ...]:
        """What the component should hold and lose, alone, with each of the sets kept or raised.

        Losses of groups combine as those of components do, scaled so that all of them together have
        the loss of the whole component; bytes are what the groups hold.

        Args:
            whole_loss: Of the component under the scheme, with nothing kept and all else untouched.
            raised_loss: The same under the wider scheme, if there is one.
        """
        losses = [0.0 if group.loss is None else group.loss for group in self.groups]
        if not _norm(losses) > 0:
            return ()
        scale = whole_loss / _norm(losses)
        kept = tuple(
            Estimate(
                component=self.component,
                choice=Choice(scheme=self.scheme, exclusions=exclusions),
                component_gb=self.component_gb
                - sum(group.saved_gb for group in self.groups[count:]),
                loss=scale * _norm(losses[count:]),
                log_loss_sd=_LOG_LOSS_SD,
            )
            for count, exclusions in enumerate(self.kept_sets(), start=1)
        )
        # What a group loses in the wider precision is to what it loses in this one as the whole is.
        share = min(1.0, raised_loss / whole_loss) if whole_loss > 0 else 0.0
        raised = tuple(
            self._raised_estimate(choice, groups, scale, share)
            for choice, groups in zip(self.raised_choices(), self._raised_sets(), strict=True)
        )
        return kept + raised

    def _raised_estimate(
        self, choice: Choice, groups: tuple[_Groups, _Groups, _Groups], scale: float, share: float
    ) -> Estimate:
        _, raised, others = groups
        given_back = sum(map(self._given_back_gb, raised))
        losses = [*(share * (it.loss or 0.0) for it in raised), *(it.loss or 0.0 for it in others)]
        return Estimate(
            component=self.component,
            choice=choice,
            component_gb=self.component_gb
            - sum(group.saved_gb for group in (*raised, *others))
            + given_back,
            component_gb_sd=_SCALES * given_back,
            loss=scale * _norm(losses),
            log_loss_sd=_LOG_LOSS_SD_RAISED,
        )

    def _given_back_gb(self, group: GroupLoss) -> float:
        """What a group takes more in the wider precision, scales not counted."""
        assert self.raised is not None
        narrow, wide = _bits(self.scheme), _bits(self.raised)
        return min(group.saved_gb, group.weights * (wide - narrow) / _BITS_A_GIB)


def extended_space(space: SearchSpace, sensitivity: Sensitivity) -> SearchSpace:
    """``space`` with the sets that ``sensitivity`` says to try."""
    component = space.components[sensitivity.component].with_measured_sets(
        sensitivity.scheme, sensitivity.kept_sets(), sensitivity.raised_choices()
    )
    components = {**space.components, sensitivity.component: component}
    return space.model_copy(update={"components": components})


def most_harmful_first(groups: Sequence[GroupLoss]) -> tuple[GroupLoss, ...]:
    """By the loss that keeping a group removes for each byte, then by its loss."""
    return tuple(sorted(groups, key=lambda group: (-group.loss_per_gb, -(group.loss or 0.0))))


def _layers(groups: Sequence[GroupLoss]) -> list[str]:
    return [path for group in groups for path in group.layers]


def _bits(scheme: str) -> float:
    parsed = Scheme.parse(scheme)
    return backend(parsed.backend).precisions[parsed.precision]


def _norm(losses: Sequence[float]) -> float:
    return math.pow(math.fsum(math.pow(loss, _EXPONENT) for loss in losses), 1 / _EXPONENT)
