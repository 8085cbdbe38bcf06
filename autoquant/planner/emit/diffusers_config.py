"""Target ``diffusers-config``: a PipelineQuantizationConfig, as Python and as JSON.

diffusers quantizes with it while it loads. Both files are written from the same values; which
layers each entry leaves alone is worked out with the loader's own rule (``exclusion_rules``).
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from autoquant.planner.emit.base import Verdict, impossible
from autoquant.planner.emit.layout import Layout
from autoquant.planner.emit.load_time import LoadTimeConfig, load_time_config
from autoquant.planner.emit.wording import (
    as_comment,
    beyond_the_plan,
    origin,
    quantized_components,
    untold_settings,
)

if TYPE_CHECKING:
    from autoquant.planner.plan import Plan

JSON_NAME = "quantization_config.json"
PYTHON_NAME = "quantization_config.py"


class DiffusersConfig:
    """Load-time quantization by diffusers and transformers themselves."""

    name = "diffusers-config"
    heeds_overrides = True
    summary = (
        "PipelineQuantizationConfig as Python and JSON; full or partial for bitsandbytes, torchao, "
        "quanto and SDNQ, impossible for other backends and for fused projections"
    )

    def carries(self, plan: Plan, layout: Layout) -> Verdict:
        """Full where the loaders' exclusion rules hit exactly the planned layers."""
        configs = _configs(plan, layout)
        if not configs:
            return impossible("it quantizes nothing, so from_pretrained() loads it as it stands.")
        refused = [
            f"{name}: {reason}" for name, reason in configs.items() if isinstance(reason, str)
        ]
        if refused:
            return impossible(
                f"{'; '.join(refused)}. Use the target 'diffusers', which quantizes after loading."
            )
        return Verdict(lost=(*_lost(configs), *untold_settings(plan, "PipelineQuantizationConfig")))

    def files(self, plan: Plan, layout: Layout) -> Mapping[str, str]:
        """The config in both forms."""
        configs = {
            name: config
            for name, config in _configs(plan, layout).items()
            if isinstance(config, LoadTimeConfig)
        }
        lost = self.carries(plan, layout).lost
        return {
            PYTHON_NAME: _python(plan, layout, configs, lost),
            JSON_NAME: _json(plan, configs, lost),
        }

    def next_step(self, files: Mapping[str, str]) -> str:
        """How to use it."""
        return "from quantization_config import load_pipeline"


def _configs(plan: Plan, layout: Layout) -> dict[str, LoadTimeConfig | str]:
    return {
        name: load_time_config(layout.components[name], part.choice, plan.runtime.compute_dtype)
        for name, part in quantized_components(plan)
    }


def _lost(configs: Mapping[str, LoadTimeConfig | str]) -> Iterator[str]:
    for name, config in configs.items():
        if isinstance(config, LoadTimeConfig):
            yield from beyond_the_plan(name, config.also_kept)


def _python(
    plan: Plan, layout: Layout, configs: Mapping[str, LoadTimeConfig], lost: tuple[str, ...]
) -> str:
    uses_torchao = any(config.quant_type for config in configs.values())
    options = {"revision": plan.pipeline.revision, "variant": plan.pipeline.variant}
    arguments = "".join(f", {key}={value!r}" for key, value in options.items() if value is not None)
    lines = [
        f'"""Load a {plan.pipeline.class_name} quantized while it loads."""',
        "",
        as_comment(origin(plan)),
        *(as_comment(f"Lost: {loss}.") for loss in lost),
        "",
        "import torch",
        "import diffusers",
        "import transformers",
        *(["from torchao import quantization"] if uses_torchao else []),
        "",
        f"SOURCE = {layout.source!r}",
        "",
        "",
        "def quantization_config():",
        "    return diffusers.PipelineQuantizationConfig(",
        "        quant_mapping={",
        *(
            textwrap.indent(f"{name!r}: {config.as_python()},", " " * 12)
            for name, config in configs.items()
        ),
        "        }",
        "    )",
        "",
        "",
        "def load_pipeline(source=SOURCE, **options):",
        "    return diffusers.DiffusionPipeline.from_pretrained(",
        f"        source, dtype=torch.{plan.runtime.compute_dtype}{arguments},",
        "        quantization_config=quantization_config(), **options",
        "    )",
    ]
    return "\n".join(lines) + "\n"


def _json(plan: Plan, configs: Mapping[str, LoadTimeConfig], lost: tuple[str, ...]) -> str:
    entries = {
        "_origin": origin(plan),
        "_lost": list(lost),
        "dtype": plan.runtime.compute_dtype,
        "libraries": {name: config.library for name, config in configs.items()},
        "quant_mapping": {name: config.as_json() for name, config in configs.items()},
    }
    return json.dumps(entries, indent=2) + "\n"
