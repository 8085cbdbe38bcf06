"""Which groups of layers hurt, as a table for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from autoquant.planner.plan import Plan
from autoquant.planner.quantities import gigabytes
from autoquant.planner.sensitivity import GroupLoss, Sensitivity
from autoquant.search_spaces.exclusions import without_excluded
from autoquant.search_spaces.scheme import Choice


def sensitivity_tables(plan: Plan) -> Iterator[RenderableType]:
    """A table for each component that was looked into under the scheme that was chosen for it."""
    for found in plan.sensitivity:
        chosen = plan.components[found.component]
        if chosen.scheme == found.scheme:
            yield Text(
                f"\nWhich layers of the {found.component} hurt: {found.scheme} on each group "
                f"alone, {found.prompts} prompts of {found.steps} steps",
                style="bold",
            )
            yield _table(found, chosen)


def _table(found: Sensitivity, chosen: Choice) -> Table:
    table = Table(header_style="bold", box=None, pad_edge=False)
    table.add_column("")
    for heading in ("saves", "loss"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("group")
    for group in found.groups:
        loss = "fails" if group.loss is None else f"{group.loss:.4g}"
        kept = "kept" if is_kept(group, chosen) else found.raised_to(group, chosen)
        plural = "" if len(group.layers) == 1 else "s"
        layers = f"{group.group} ({len(group.layers)} layer{plural})"
        table.add_row(kept, gigabytes(group.saved_gb), loss, layers)
    return table


def is_kept(group: GroupLoss, chosen: Choice) -> bool:
    """Whether ``chosen`` leaves every layer of the group as it is."""
    return not without_excluded(group.layers, chosen.exclusions)
