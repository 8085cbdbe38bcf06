"""Sort a plan's components into what a tool takes and what it does not, with the reasons."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from autoquant.planner.emit.base import Verdict, impossible
from autoquant.planner.emit.layout import ComponentLayout, Layout
from autoquant.planner.emit.wording import quantized_components, untold_settings

if TYPE_CHECKING:
    from autoquant.planner.plan import Plan, PlannedComponent

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Refusal:
    """Why a tool cannot take a component's choice."""

    reason: str


@dataclass(frozen=True)
class Taken(Generic[Entry]):
    """What a tool is given for one component, and what differs from the plan."""

    entry: Entry
    lost: tuple[str, ...] = ()


Translate = Callable[[str, "PlannedComponent", ComponentLayout], Taken[Entry] | Refusal]


@dataclass(frozen=True)
class Shares(Generic[Entry]):
    """A plan divided into what a tool takes and what it refuses, by component."""

    taken: dict[str, Taken[Entry]]
    refused: dict[str, str]
    fused: tuple[str, ...]
    plan: Plan

    @property
    def entries(self) -> dict[str, Entry]:
        """What the tool is given, by component."""
        return {name: taken.entry for name, taken in self.taken.items()}

    def verdict(self, layout: Layout, tool: str, told: Collection[str] = ()) -> Verdict:
        """Impossible if a denoiser is refused; text encoders may stay unquantized, which is said.

        The denoiser holds most of the memory: a file that leaves it alone is not the plan at all.

        Args:
            layout: The components.
            tool: What people call it.
            told: Names of the levers that its file holds.
        """
        fatal = [
            f"{name}: {reason}"
            for name, reason in self.refused.items()
            if layout.components[name].library == "diffusers"
        ]
        if fatal:
            return impossible("; ".join(fatal))
        lost = [loss for taken in self.taken.values() for loss in taken.lost]
        lost += [
            f"{name} stays unquantized, and needs more memory than measured: {reason}"
            for name, reason in self.refused.items()
        ]
        lost += [
            f"{name}: {tool} does not fuse the attention projections; latency was measured fused"
            for name in self.fused
        ]
        lost += untold_settings(self.plan, tool, told)
        return Verdict(lost=tuple(lost))


def divide(
    plan: Plan, layout: Layout, translate: Translate[Entry], mixed: Collection[str] = ()
) -> Shares[Entry]:
    """Ask ``translate`` about every quantized component, with its projections unfused.

    Args:
        plan: The plan.
        layout: The components.
        translate: What a tool is given for a component, or why it cannot take it.
        mixed: Backends whose layers the tool takes in more than one precision; a component of
            another that is planned so is refused.
    """
    taken: dict[str, Taken[Entry]] = {}
    refused: dict[str, str] = {}
    fused = []
    for name, part in quantized_components(plan):
        if part.fuse_qkv:
            fused.append(name)
        if part.scheme == "none":
            continue
        component = layout.components[name].unfused
        answer = (
            Refusal(_one_precision(part))
            if part.overrides and part.scheme.partition(":")[0] not in mixed
            else translate(name, part, component)
        )
        if isinstance(answer, Refusal):
            refused[name] = answer.reason
        else:
            taken[name] = answer
    return Shares(taken, refused, tuple(fused), plan)


def _one_precision(part: PlannedComponent) -> str:
    others = ", ".join(override.scheme for override in part.overrides)
    return (
        f"the tool has one precision for a whole component, and the plan gives some layers "
        f"{others} instead of {part.scheme}"
    )
