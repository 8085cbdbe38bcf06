"""Target ``simpletuner``: the quantization part of a LoRA training config.

Keys and values: simpletuner 4.10.1, helpers/models/common.py
(_build_component_quantization_config) and helpers/training/quantisation/__init__.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autoquant.planner.emit.base import Verdict
from autoquant.planner.emit.layout import ComponentLayout, Layout
from autoquant.planner.emit.load_time import LoadTimeConfig, load_time_config
from autoquant.planner.emit.shares import Refusal, Shares, Taken, divide
from autoquant.planner.emit.wording import beyond_the_plan, origin

if TYPE_CHECKING:
    from autoquant.planner.plan import Plan, PlannedComponent

_FILE = "config.json"

# helpers/training/quantisation/__init__.py, TORCHAO_QUANT_TYPE_CONFIG_MAP.
_TORCHAO_TYPES = {
    "Int8WeightOnlyConfig": "int8_weight_only",
    "Float8WeightOnlyConfig": "float8_weight_only",
    "Int8DynamicActivationInt8WeightConfig": "int8_dynamic_activation_int8_weight",
}


class SimpleTuner:
    """Load-time quantization of the frozen model that a LoRA is trained on."""

    name = "simpletuner"
    heeds_overrides = True
    summary = (
        "SimpleTuner LoRA config, to merge into your own; full for bitsandbytes, torchao and "
        "quanto, impossible for other backends"
    )

    def carries(self, plan: Plan, layout: Layout) -> Verdict:
        """Full where the loaders' exclusion rules hit exactly the planned layers."""
        return _shares(plan, layout).verdict(layout, "SimpleTuner")

    def files(self, plan: Plan, layout: Layout) -> Mapping[str, str]:
        """``config.json``; the losses stand in an entry that SimpleTuner never looks up."""
        mapping: dict[str, Any] = {
            # What is not named falls back to "text_encoder", so every component is named.
            name: _shares(plan, layout).entries.get(name)
            for name, component in layout.components.items()
            if component.library == "transformers" or name in plan.components
        }
        mapping["_autoquant"] = [origin(plan), *self.carries(plan, layout).lost]
        entries = {
            "model_type": "lora",
            "pretrained_model_name_or_path": layout.source,
            "base_model_precision": "no_change",
            "quantize_via": "pipeline",
            "quantization_config": mapping,
        }
        return {_FILE: json.dumps(entries, indent=2) + "\n"}

    def next_step(self, files: Mapping[str, str]) -> str:
        """How to use it."""
        return f"merge {_FILE} into your training config"


def _shares(plan: Plan, layout: Layout) -> Shares[dict[str, Any]]:
    def translate(
        name: str, part: PlannedComponent, component: ComponentLayout
    ) -> Taken[dict[str, Any]] | Refusal:
        choice = part.choice.model_copy(update={"fuse_qkv": False})
        config = load_time_config(component, choice, plan.runtime.compute_dtype)
        if isinstance(config, str):
            return Refusal(config)
        entry = _entry(config)
        if entry is None:
            return Refusal(f"SimpleTuner cannot say {part.scheme} with its arguments")
        return Taken(entry, tuple(beyond_the_plan(name, config.also_kept)))

    return divide(plan, layout, translate)


def _entry(config: LoadTimeConfig) -> dict[str, Any] | None:
    if config.class_name == "SDNQConfig":
        return None
    entry = dict(config.arguments)
    if config.quant_type is not None:
        named = _TORCHAO_TYPES.get(config.quant_type.class_name)
        return None if named is None else {"quant_type": named, **entry}
    if entry.get("load_in_8bit"):
        entry["load_in_4bit"] = False
    if entry.get("load_in_4bit"):
        entry["bnb_4bit_use_double_quant"] = False
    return entry
