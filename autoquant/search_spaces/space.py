"""What may be tried for each component of a pipeline on this machine, as plain data.

Reading a space needs no torch; only ``open_space`` looks at modules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from autoquant.search_spaces.exclusions import without_excluded
from autoquant.search_spaces.fuse import can_fuse
from autoquant.search_spaces.levers import (
    AskedLevers,
    LeverConflict,
    LeverSpace,
    LeverStruck,
    lever_conflicts,
    open_levers,
)
from autoquant.search_spaces.linears import plain_linears
from autoquant.search_spaces.scheme import NONE, Choice, Scheme
from autoquant.search_spaces.sensitivity import generic, sensitive_tiers, why_pointless
from autoquant.search_spaces.usable import forbidden, usable_schemes

if TYPE_CHECKING:
    from torch import nn

EVERY_SCHEME = "*"


class ComponentSpace(BaseModel):
    """What is open to one component.

    Attributes:
        schemes: ``none`` first, then the schemes that can run here.
        exclusions: Sets of exact module paths, each sorted: the empty set, then each the one before
            and further sensitive layers; those of a user's file need not be nested.
        fuse_qkv: ``(False,)``, or ``(False, True)`` where the model can fuse.
        same_as: For a scheme under which some sets quantize the same layers as smaller ones, the
            position of the smallest equal set for each of ``exclusions``.
        measured_sets: How many of ``exclusions``, the last ones, came out of a measurement.
        mixed: Further choices, those with overrides, not fused. Each is one more beside the
            combinations of the rest; its scheme is among ``schemes``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schemes: tuple[str, ...]
    exclusions: tuple[tuple[str, ...], ...] = ((),)
    fuse_qkv: tuple[bool, ...] = (False,)
    same_as: dict[str, tuple[int, ...]] = {}
    measured_sets: int = 0
    mixed: tuple[Choice, ...] = ()

    @property
    def every_scheme(self) -> tuple[str, ...]:
        """The schemes, and those that single layers get."""
        overriding = (scheme for choice in self.mixed for scheme in choice.schemes)
        return tuple(dict.fromkeys((*self.schemes, *overriding)))

    def smallest_equal(self, scheme: str, position: int) -> tuple[str, ...]:
        """The smallest set that quantizes what the one at ``position`` does under ``scheme``."""
        return self.exclusions[self.same_as.get(scheme, range(position + 1))[position]]

    @staticmethod
    def may_fuse(scheme: str) -> bool:
        """Whether projections can be fused before ``scheme``: not those that come from a file."""
        return not Scheme.parse(scheme).from_file

    def plainest(self, scheme: str) -> Choice:
        """``scheme`` with the first of the exclusion sets, not fused."""
        if scheme == NONE or scheme not in self.schemes:
            return Choice()
        return Choice(scheme=scheme, exclusions=self.exclusions[0])

    def distinct_exclusions(
        self, scheme: str, *, measured: bool = True
    ) -> tuple[tuple[str, ...], ...]:
        """The sets that quantize different layers under ``scheme``, ``measured`` ones or not."""
        positions = range(len(self.exclusions) - (0 if measured else self.measured_sets))
        return tuple(dict.fromkeys(self.smallest_equal(scheme, place) for place in positions))

    def offered(self, choice: Choice) -> Choice:
        """``choice``, or the one that is offered in its stead as it quantizes the same layers."""
        if choice.overrides or choice.exclusions not in self.exclusions:
            return choice
        place = self.exclusions.index(choice.exclusions)
        exclusions = self.smallest_equal(choice.scheme, place)
        return choice.model_copy(update={"exclusions": exclusions})

    def with_measured_sets(
        self, scheme: str, sets: Sequence[tuple[str, ...]], mixed: Sequence[Choice] = ()
    ) -> ComponentSpace:
        """The same with further ``sets``, which only ``scheme`` tries, and ``mixed`` choices."""
        before = len(self.exclusions)
        new = [paths for paths in sets if paths not in self.exclusions]
        same_as = {}
        for name in self.schemes:
            known = self.same_as.get(name, tuple(range(before)))
            added = range(before, before + len(new)) if name == scheme else (0,) * len(new)
            same_as[name] = (*known, *added)
        for place in range(before - self.measured_sets, before):
            if self.exclusions[place] in sets:  # another scheme's measurement said so too
                at = same_as[scheme]
                same_as[scheme] = (*at[:place], place, *at[place + 1 :])
        return self.model_copy(
            update={
                "exclusions": (*self.exclusions, *new),
                "same_as": same_as,
                "measured_sets": self.measured_sets + len(new),
                "mixed": tuple(dict.fromkeys((*self.mixed, *mixed))),
            }
        )


class Struck(BaseModel):
    """A scheme that is not tried, and why; the scheme ``*`` strikes the whole component."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    component: str
    scheme: str
    reason: str


class SearchSpace(BaseModel):
    """What is open, and all that was struck out.

    Attributes:
        components: The components to decide on, in the pipeline's order.
        levers: What is open to the pipeline as a whole.
        conflicts: Schemes and values of levers that are open, but not together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    components: dict[str, ComponentSpace]
    struck: tuple[Struck, ...] = ()
    levers: LeverSpace = LeverSpace()
    levers_struck: tuple[LeverStruck, ...] = ()
    conflicts: tuple[LeverConflict, ...] = ()

    def why_refused(self, component: str, choice: Choice, lever: str, value: str) -> str | None:
        """Why ``component`` cannot have ``choice`` under this value of a lever; None if it can."""
        reasons = (self._reasons.get((component, it, lever, value)) for it in choice.schemes)
        return next(filter(None, reasons), None)

    @cached_property
    def _reasons(self) -> dict[tuple[str, str, str, str], str]:
        return {(c.component, c.scheme, c.lever, c.value): c.reason for c in self.conflicts}


def open_space(
    pipeline_class_name: str,
    modules: Mapping[str, nn.Module],
    device_type: str,
    backends: Sequence[str] | None = None,
    *,
    capability: tuple[int, int] | None = None,
    compute_dtype: str = "bfloat16",
) -> SearchSpace:
    """Find out what may be tried for each of ``modules``.

    Args:
        pipeline_class_name: Like ``FluxPipeline``; decides which layers count as sensitive.
        modules: The pipeline's torch modules by component name; they may be on the meta device.
        device_type: Where the pipeline will run, like ``cuda`` or ``cpu``.
        backends: Backends to search (``torchao``), or single schemes (``bitsandbytes:fp4``); None
            searches all that are usable.
        capability: CUDA compute capability of the device, if it has one.
        compute_dtype: What the pipeline will compute in.

    Raises:
        BackendUnavailable: A backend or scheme asked for is unknown or cannot run here.
    """
    conditions: dict[str, Any] = {"capability": capability, "compute_dtype": compute_dtype}
    usable, unusable = usable_schemes(device_type, backends, **conditions)
    components: dict[str, ComponentSpace] = {}
    struck: list[Struck] = []
    for name, module in modules.items():
        reason = _not_searched(module)
        if reason is not None:
            struck.append(Struck(component=name, scheme=EVERY_SCHEME, reason=reason))
            continue
        struck += [
            Struck(component=name, scheme=scheme, reason=reason)
            for scheme, reason in unusable.items()
        ]
        layers: dict[str, tuple[str, ...]] = {}
        for scheme, owner in usable.items():
            found = owner.quantizable_layers(module, Scheme.parse(scheme).precision)
            reason = forbidden(scheme, device_type, component=_full_name(module), **conditions)
            if reason is None and scheme not in (backends or ()):
                reason = why_pointless(pipeline_class_name, type(module).__name__, scheme)
            if found and reason is None:
                layers[scheme] = found
            else:
                reason = reason or f"no layer of this {type(module).__name__} has a shape that fits"
                struck.append(Struck(component=name, scheme=scheme, reason=reason))
        exclusions, same_as = distinct(_exclusions(pipeline_class_name, module), layers)
        components[name] = ComponentSpace(
            schemes=(NONE, *layers),
            exclusions=exclusions,
            fuse_qkv=(False, True) if can_fuse(module) else (False,),
            same_as=same_as,
        )
    return SearchSpace(components=components, struck=tuple(struck))


def with_levers(
    space: SearchSpace,
    modules: Mapping[str, nn.Module],
    device_type: str,
    image_size: tuple[int, int],
    batch_size: int,
    asked: AskedLevers,
    capability: tuple[int, int] | None = None,
) -> SearchSpace:
    """``space`` with what is open to the pipeline as a whole; see ``open_levers``.

    Raises:
        InputError: A value that was asked for cannot be had here.
    """
    levers, struck = open_levers(modules, device_type, image_size, batch_size, asked)
    conflicts = lever_conflicts(
        {name: component.every_scheme for name, component in space.components.items()},
        {name: _full_name(modules[name]) for name in space.components},
        levers,
        device_type,
        capability,
    )
    return space.model_copy(
        update={"levers": levers, "levers_struck": struck, "conflicts": conflicts}
    )


def _full_name(module: nn.Module) -> str:
    return f"{type(module).__module__.partition('.')[0]}.{type(module).__name__}"


def _not_searched(module: nn.Module) -> str | None:
    rules = generic()
    for rule in rules.not_searched:
        if re.fullmatch(rule.models, type(module).__name__):
            return rule.why
    total = sum(tensor.numel() * tensor.element_size() for tensor in module.parameters())
    linear = sum(
        layer.weight.numel() * layer.weight.element_size()
        for layer in plain_linears(module).values()
    )
    if total == 0 or linear < rules.smallest_linear_share * total:
        share = 100 * linear / total if total else 0.0
        return f"linear layers hold only {share:.0f}% of this {type(module).__name__}"
    return None


def _exclusions(pipeline_class_name: str, module: nn.Module) -> tuple[tuple[str, ...], ...]:
    sets: list[tuple[str, ...]] = [()]
    for paths in sensitive_tiers(pipeline_class_name, module).values():
        sets.append(tuple(sorted({*sets[-1], *paths})))
    return tuple(sets)


def distinct(
    sets: Sequence[tuple[str, ...]], layers: Mapping[str, tuple[str, ...]]
) -> tuple[tuple[tuple[str, ...], ...], dict[str, tuple[int, ...]]]:
    """Drop the sets that change nothing under any scheme, and tell which change nothing under one.

    A set that leaves a scheme nothing to quantize counts as the one before it.
    """
    smallest = {scheme: _smallest_equal(sets, eligible) for scheme, eligible in layers.items()}
    kept = [
        place
        for place in range(len(sets))
        if place == 0 or any(positions[place] == place for positions in smallest.values())
    ]
    same_as = {
        scheme: tuple(kept.index(positions[place]) for place in kept)
        for scheme, positions in smallest.items()
    }
    identity = tuple(range(len(kept)))
    return (
        tuple(sets[place] for place in kept),
        {scheme: positions for scheme, positions in same_as.items() if positions != identity},
    )


def _smallest_equal(sets: Sequence[tuple[str, ...]], eligible: tuple[str, ...]) -> list[int]:
    first: dict[tuple[str, ...], int] = {}
    positions: list[int] = []
    for place, exclusions in enumerate(sets):
        left = without_excluded(eligible, exclusions)
        before = positions[-1] if positions else place
        positions.append(first.setdefault(left, place) if left else before)
    return positions
