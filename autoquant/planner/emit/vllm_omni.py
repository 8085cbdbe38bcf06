"""Target ``vllm-omni``: a deploy file for vLLM-Omni's diffusers backend.

Keys and values: vllm-omni 0.30.0, config/stage_config.py and
diffusion/models/diffusers_adapter/quantization_utils.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from autoquant.planner.emit.base import Verdict
from autoquant.planner.emit.layout import ComponentLayout, Layout
from autoquant.planner.emit.load_time import load_time_config
from autoquant.planner.emit.shares import Refusal, Shares, Taken, divide
from autoquant.planner.emit.wording import beyond_the_plan, yaml_header

if TYPE_CHECKING:
    from autoquant.planner.plan import Plan, PlannedComponent

_FILE = "vllm_omni.yaml"


class VllmOmni:
    """Load-time quantization of the denoiser by diffusers, inside the server."""

    name = "vllm-omni"
    heeds_overrides = True
    summary = (
        "vLLM-Omni deploy YAML; full for a denoiser in bitsandbytes, torchao or quanto, partial "
        "where text encoders are quantized: it reads no such config for them"
    )

    def carries(self, plan: Plan, layout: Layout) -> Verdict:
        """The denoiser, through diffusers' own loader."""
        return _shares(plan, layout).verdict(layout, "vLLM-Omni")

    def files(self, plan: Plan, layout: Layout) -> Mapping[str, str]:
        """``vllm_omni.yaml``."""
        load: dict[str, Any] = {}
        shares = _shares(plan, layout)
        if shares.entries:
            load["quantization_config"] = {"quant_mapping": shares.entries}
        for key, value in (
            ("revision", plan.pipeline.revision),
            ("variant", plan.pipeline.variant),
        ):
            if value is not None:
                load[key] = value
        stage = {
            "stage_id": 0,
            "diffusion_load_format": "diffusers",
            "diffusers_load_kwargs": load,
        }
        entries = {"dtype": plan.runtime.compute_dtype, "stages": [stage]}
        header = yaml_header(plan, self.carries(plan, layout).lost)
        command = f"# vllm serve {layout.source} --omni --deploy-config {_FILE}\n"
        return {_FILE: header + command + yaml.safe_dump(entries, sort_keys=False)}

    def next_step(self, files: Mapping[str, str]) -> str:
        """How to use it."""
        return f"the first lines of {_FILE} hold the command"


def _shares(plan: Plan, layout: Layout) -> Shares[dict[str, Any]]:
    def translate(
        name: str, part: PlannedComponent, component: ComponentLayout
    ) -> Taken[dict[str, Any]] | Refusal:
        if component.library != "diffusers":
            return Refusal(
                "vLLM-Omni builds diffusers' configs alone, which transformers does not take; "
                "serve the folder that `autoquant quantize` writes instead"
            )
        choice = part.choice.model_copy(update={"fuse_qkv": False})
        config = load_time_config(component, choice, plan.runtime.compute_dtype)
        if isinstance(config, str):
            return Refusal(config)
        if config.class_name == "SDNQConfig":
            return Refusal("vLLM-Omni has not been checked with SDNQ")
        return Taken(
            _as_vllm_reads_it(config.as_json()), tuple(beyond_the_plan(name, config.also_kept))
        )

    return divide(plan, layout, translate)


def _as_vllm_reads_it(entry: dict[str, Any]) -> dict[str, Any]:
    """vLLM-Omni looks the method up where diffusers keeps 4 and 8 bits apart."""
    if entry["quant_method"] != "bitsandbytes":
        return entry
    bits = "8bit" if entry.get("load_in_8bit") else "4bit"
    return entry | {"quant_method": f"bitsandbytes_{bits}"}
