"""Target ``sglang``: a ``--config`` file of SGLang's diffusion server.

Keys and values: sglang 0.5.23, multimodal_gen/runtime/server_args/server_args.py and
runtime/layers/quantization/__init__.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import yaml

from autoquant.planner.emit.base import Verdict
from autoquant.planner.emit.equivalents import equivalent
from autoquant.planner.emit.exclusion_rules import SGLANG, spell_kept_layers
from autoquant.planner.emit.layout import ComponentLayout, Layout
from autoquant.planner.emit.shares import Refusal, Shares, Taken, divide
from autoquant.planner.emit.wording import beyond_the_plan, yaml_header

if TYPE_CHECKING:
    from autoquant.planner.plan import Plan, PlannedComponent

# The methods that quantize while loading a bfloat16 checkpoint.
_BY_WIDTH = {"8": "convrot_int8", "float8": "fp8"}
_PRECISIONS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
_FILE = "sglang.yaml"


class Sglang:
    """8 bits while loading, by SGLang's own methods."""

    name = "sglang"
    heeds_overrides = True
    summary = "SGLang diffusion server config; partial for 8 bits, impossible for 4 and 2"

    def carries(self, plan: Plan, layout: Layout) -> Verdict:
        """8 bits by SGLang's own methods, never exactly as measured."""
        return _shares(plan, layout).verdict(layout, "SGLang")

    def files(self, plan: Plan, layout: Layout) -> Mapping[str, str]:
        """``sglang.yaml``."""
        shares = _shares(plan, layout)
        precision = _PRECISIONS[plan.runtime.compute_dtype]
        entries = {
            "model_path": layout.source,
            "component_quantizations": shares.entries,
            "component_quantization_ignored_layers": {
                name: list(layout.components[name].unfused.kept)
                for name in shares.entries
                if layout.components[name].unfused.kept
            },
            "component_precisions": dict.fromkeys(layout.components, precision),
        }
        if plan.pipeline.revision is not None:
            entries["revision"] = plan.pipeline.revision
        filled = {key: value for key, value in entries.items() if value}
        header = yaml_header(plan, self.carries(plan, layout).lost)
        return {_FILE: header + yaml.safe_dump(filled, sort_keys=False)}

    def next_step(self, files: Mapping[str, str]) -> str:
        """How to use it."""
        return f"sglang serve --config {_FILE}"


def _shares(plan: Plan, layout: Layout) -> Shares[str]:
    return divide(plan, layout, _translate)


def _translate(
    name: str, part: PlannedComponent, component: ComponentLayout
) -> Taken[str] | Refusal:
    found = equivalent(part.scheme, {}, _BY_WIDTH)
    if found is None:
        return Refusal(f"SGLang quantizes to 8 bits while loading, not to {part.scheme}")
    lost = [found.loss(name, part.scheme, "SGLang")]
    lost += beyond_the_plan(name, spell_kept_layers(component, SGLANG).also_kept)
    if component.kept:
        lost.append(
            f"{name}: the layers that the plan keeps ({len(component.kept)}) are listed by their "
            f"{component.library} names; one that SGLang's own model calls otherwise is quantized"
        )
    return Taken(found.name, tuple(lost))
