"""What an emitter is: it turns a plan into the files that another tool reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from autoquant.planner.emit.layout import Layout

if TYPE_CHECKING:
    from autoquant.planner.plan import Plan

Level = Literal["full", "partial", "impossible"]


@dataclass(frozen=True)
class Verdict:
    """What a tool can carry of one plan.

    Attributes:
        lost: What the tool will do otherwise than planned, a sentence each.
        impossible: Why nothing is emitted at all.
    """

    lost: tuple[str, ...] = ()
    impossible: str | None = None

    @property
    def level(self) -> Level:
        """One word for it."""
        if self.impossible is not None:
            return "impossible"
        return "partial" if self.lost else "full"


class Emitter(Protocol):
    """Writes plans for one tool. Neither member loads weights or touches the disk.

    One that looks at ``overrides`` of components has ``heeds_overrides = True`` beside this; to
    others, plans that have any are not given at all. So it is with ``adapters`` of plans and
    ``heeds_adapters``.
    """

    @property
    def name(self) -> str:
        """What ``--to`` calls it."""

    @property
    def summary(self) -> str:
        """The tool, and what it can carry of plans in general, in one line."""

    def carries(self, plan: Plan, layout: Layout) -> Verdict:
        """What the tool can carry of this plan."""

    def files(self, plan: Plan, layout: Layout) -> Mapping[str, str]:
        """The files by relative path, what is lost written into them.

        Called only for plans that are not impossible.
        """

    def next_step(self, files: Mapping[str, str]) -> str:
        """What to type or do with the files, in one line."""


def verdict_on(plan: Plan, layout: Layout, emitter: Emitter) -> Verdict:
    """What ``emitter`` can carry, where it is known to look at all that the plan says."""
    mixed = [name for name, part in plan.components.items() if part.overrides]
    if mixed and not getattr(emitter, "heeds_overrides", False):
        return impossible(
            f"{emitter.name} does not look at layers that get another precision than the rest, as "
            f"some of {' and '.join(mixed)} do"
        )
    if plan.adapters and not getattr(emitter, "heeds_adapters", False):
        names = ", ".join(dict.fromkeys(adapter.name for adapter in plan.adapters))
        return impossible(
            f"{emitter.name} is not told of LoRA adapters, and the plan was measured with {names}"
        )
    return emitter.carries(plan, layout)


def impossible(reason: str) -> Verdict:
    """The verdict that nothing can be emitted, because of ``reason``."""
    return Verdict(impossible=reason)
