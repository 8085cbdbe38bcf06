"""Target ``cache-dit``: its YAML, which SGLang's diffusers backend reads too.

Keys and values: cache-dit 1.5.3, quantization/config.py and quantization/torchao/quantize_ao.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from autoquant.planner.emit.base import Verdict
from autoquant.planner.emit.equivalents import equivalent
from autoquant.planner.emit.exclusion_rules import CACHE_DIT, spell_kept_layers
from autoquant.planner.emit.layout import ComponentLayout, Layout
from autoquant.planner.emit.shares import Refusal, Shares, Taken, divide
from autoquant.planner.emit.wording import beyond_the_plan, yaml_header

if TYPE_CHECKING:
    from autoquant.planner.plan import Plan, PlannedComponent

_EXACT = {
    "torchao:int8wo": "int8_weight_only",
    "torchao:float8wo": "float8_weight_only",
    "torchao:int8dq": "int8_per_row",
    "torchao:float8dq": "float8_per_row",
}
_BY_WIDTH = {"8": "int8_weight_only", "float8": "float8_weight_only", "4": "int4_weight_only"}
_FILE = "cache_dit.yaml"


class CacheDit:
    """torchao, component by component, with exclusions."""

    name = "cache-dit"
    heeds_overrides = True
    summary = "cache-dit YAML; full for torchao, partial for other backends of 8 or 4 bits"

    def carries(self, plan: Plan, layout: Layout) -> Verdict:
        """Full where cache-dit's substring match hits exactly the planned layers."""
        return _shares(plan, layout).verdict(layout, "cache-dit")

    def files(self, plan: Plan, layout: Layout) -> Mapping[str, str]:
        """``cache_dit.yaml``."""
        shares = _shares(plan, layout)
        entries = {
            "quantize_config": {
                "backend": "torchao",
                "regional_quantize": False,
                "components_to_quantize": shares.entries,
            }
        }
        header = yaml_header(plan, self.carries(plan, layout).lost)
        return {_FILE: header + yaml.safe_dump(entries, sort_keys=False)}

    def next_step(self, files: Mapping[str, str]) -> str:
        """How to use it."""
        return f'cache_dit.enable_cache(pipeline, **cache_dit.load_configs("{_FILE}"))'


def _shares(plan: Plan, layout: Layout) -> Shares[dict[str, Any]]:
    return divide(plan, layout, _translate)


def _translate(
    name: str, part: PlannedComponent, component: ComponentLayout
) -> Taken[dict[str, Any]] | Refusal:
    found = equivalent(part.scheme, _EXACT, _BY_WIDTH)
    if found is None:
        return Refusal(f"cache-dit stores nothing as wide as {part.scheme}")
    spelled = spell_kept_layers(component, CACHE_DIT)
    lost = [] if found.exact else [found.loss(name, part.scheme, "cache-dit")]
    lost += beyond_the_plan(name, spelled.also_kept)
    entry = {
        "quant_type": found.name,
        "regional_quantize": False,
        "per_tensor_fallback": False,
        "exclude_layers": list(spelled.entries),
    }
    return Taken(entry, tuple(lost))
