"""Target ``onetrainer``: the quantization part of a OneTrainer training config.

Keys and values: OneTrainer at 23df3832, modules/util/config/TrainConfig.py,
modules/util/enum/DataType.py and modules/util/quantization_util.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autoquant.planner.emit.base import Verdict, impossible
from autoquant.planner.emit.equivalents import equivalent
from autoquant.planner.emit.exclusion_rules import ONETRAINER, spell_kept_layers
from autoquant.planner.emit.layout import ComponentLayout, Layout
from autoquant.planner.emit.shares import Refusal, Shares, Taken, divide
from autoquant.planner.emit.wording import beyond_the_plan, origin

if TYPE_CHECKING:
    from autoquant.planner.plan import Plan, PlannedComponent

_FILE = "onetrainer.json"
# Without it, OneTrainer takes the file for one of its first format and migrates it.
_VERSION = 11
# None is exact: NFLOAT_4 compresses the scales of nf4, INT_8 has no threshold for outliers
# (modules/module/quantized/LinearNf4.py, modules/util/quantization_util.py).
_BY_WIDTH = {"8": "INT_8", "float8": "FLOAT_8", "4": "NFLOAT_4"}
_DTYPES = {"bfloat16": "BFLOAT_16", "float16": "FLOAT_16", "float32": "FLOAT_32"}
_MODEL_TYPES = {
    "FluxPipeline": "FLUX_DEV_1",
    "StableDiffusion3Pipeline": "STABLE_DIFFUSION_3",
    "StableDiffusionXLPipeline": "STABLE_DIFFUSION_XL_10_BASE",
    "StableDiffusionPipeline": "STABLE_DIFFUSION_15",
    "PixArtSigmaPipeline": "PIXART_SIGMA",
    "QwenImagePipeline": "QWEN",
}


class OneTrainer:
    """A dtype per component of the frozen model that is trained on."""

    name = "onetrainer"
    heeds_overrides = True
    summary = (
        "OneTrainer config, to merge into your own; partial for 8 and 4 bits, by OneTrainer's own "
        "types"
    )

    def carries(self, plan: Plan, layout: Layout) -> Verdict:
        """A dtype per component, never exactly as measured; one filter for the denoiser."""
        if plan.pipeline.class_name not in _MODEL_TYPES:
            return impossible(
                f"OneTrainer's name for a {plan.pipeline.class_name} is not known; known are "
                f"{', '.join(_MODEL_TYPES)}"
            )
        return _shares(plan, layout).verdict(layout, "OneTrainer")

    def files(self, plan: Plan, layout: Layout) -> Mapping[str, str]:
        """``onetrainer.json``; OneTrainer passes over keys that it does not know."""
        entries = _shares(plan, layout).entries
        default = _DTYPES[plan.runtime.compute_dtype]
        config: dict[str, Any] = {
            "__version": _VERSION,
            "_autoquant": [origin(plan), *self.carries(plan, layout).lost],
            "model_type": _MODEL_TYPES[plan.pipeline.class_name],
            "base_model_name": layout.source,
        }
        for name in layout.components:
            config[name] = {"weight_dtype": entries.get(name, default)}
        kept = [
            entry
            for name in entries
            if layout.components[name].library == "diffusers"
            for entry in spell_kept_layers(layout.components[name].unfused, ONETRAINER).entries
        ]
        if kept:
            # OneTrainer lists what IS quantized, split at commas, which no module path has.
            config["quantization"] = {
                "layer_filter": f"^(?!({'|'.join(kept)})$)",
                "layer_filter_preset": "custom",
                "layer_filter_regex": True,
            }
        return {_FILE: json.dumps(config, indent=2) + "\n"}

    def next_step(self, files: Mapping[str, str]) -> str:
        """How to use it."""
        return f"merge {_FILE} into your training config"


def _shares(plan: Plan, layout: Layout) -> Shares[str]:
    return divide(plan, layout, _translate)


def _translate(
    name: str, part: PlannedComponent, component: ComponentLayout
) -> Taken[str] | Refusal:
    found = equivalent(part.scheme, {}, _BY_WIDTH)
    if found is None:
        return Refusal(f"OneTrainer has no type as wide as {part.scheme}")
    lost = [found.loss(name, part.scheme, "OneTrainer")]
    if component.library == "diffusers":
        lost += beyond_the_plan(name, spell_kept_layers(component, ONETRAINER).also_kept)
    elif component.kept:
        lost.append(
            f"{name}: OneTrainer's filter is for the denoiser, so the layers that the plan "
            f"keeps ({len(component.kept)}) are quantized unless OneTrainer leaves them out itself"
        )
    return Taken(found.name, tuple(lost))
