"""Target ``diffusers``: the loader script, which carries everything that was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from autoquant.planner.emit.base import Verdict
from autoquant.planner.emit.layout import Layout
from autoquant.planner.emit.loader_script import SCRIPT_NAME, loader_script

if TYPE_CHECKING:
    from autoquant.planner.plan import Plan


class DiffusersScript:
    """Python that quantizes with the functions that measured; needs no autoquant."""

    name = "diffusers"
    heeds_overrides = True
    heeds_adapters = True
    summary = "loader script in plain diffusers; carries every plan in full"

    def carries(self, plan: Plan, layout: Layout) -> Verdict:
        """Everything."""
        return Verdict()

    def files(self, plan: Plan, layout: Layout) -> Mapping[str, str]:
        """``load_pipeline.py``."""
        return {
            SCRIPT_NAME: loader_script(
                plan,
                layout.source,
                {
                    name: (component.library, component.class_name)
                    for name, component in layout.components.items()
                },
                {name: component.kept for name, component in layout.components.items()},
                {name: component.overridden for name, component in layout.components.items()},
            )
        }

    def next_step(self, files: Mapping[str, str]) -> str:
        """How to run it."""
        return f"python {SCRIPT_NAME}, or: from load_pipeline import load_pipeline"
