"""Target ``sdnext``: settings to merge into SD.Next's config.json.

Keys and values: SD.Next at 058a7f0c, modules/ui_definitions.py and modules/shared_items.py;
modules/options_handler.py passes over settings whose name starts with ``uiux_``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autoquant.planner.emit.base import Verdict
from autoquant.planner.emit.equivalents import equivalent
from autoquant.planner.emit.layout import ComponentLayout, Layout
from autoquant.planner.emit.shares import Refusal, Shares, Taken, divide
from autoquant.planner.emit.wording import origin

if TYPE_CHECKING:
    from autoquant.planner.candidate import Runtime
    from autoquant.planner.plan import Plan, PlannedComponent

_FILE = "config.json"
_EXACT = {
    f"sdnq:{name}": name
    for name in ("int8", "int6", "uint4", "float8_e4m3fn", "uint5", "uint3", "uint2", "uint8")
}
_BY_WIDTH = {"8": "int8", "float8": "float8_e4m3fn", "6": "int6", "5": "uint5", "4": "uint4"}
_BY_WIDTH |= {"3": "uint3", "2": "uint2"}
_LAYERWISE = {"layerwise:float8_e4m3fn": "float8_e4m3fn", "layerwise:float8_e5m2": "float8_e5m2"}
_LAYERWISE_MARK = "layerwise "
_DTYPES = {"bfloat16": "BF16", "float16": "FP16", "float32": "FP32"}


_OFFLOADS: dict[str, dict[str, Any]] = {
    "model": {"diffusers_offload_mode": "model"},
    "sequential": {"diffusers_offload_mode": "sequential"},
    **{
        f"group_{level}{suffix}": {
            "diffusers_offload_mode": "group",
            "group_offload_type": f"{level}_level",
            "group_offload_stream": bool(suffix),
        }
        for level in ("block", "leaf")
        for suffix in ("", "_stream")
    },
}


class SdNext:
    """SDNQ or layerwise casting: one dtype for the denoiser, one for all text encoders."""

    name = "sdnext"
    heeds_overrides = True
    summary = (
        "SD.Next settings, to merge into its config.json; partial: SDNQ or layerwise float8, one "
        "dtype for the denoiser and one for all text encoders"
    )

    def carries(self, plan: Plan, layout: Layout) -> Verdict:
        """Never full: SD.Next leaves out layers by a list of its own."""
        shares = _shares(plan, layout)
        verdict = shares.verdict(layout, "SD.Next", told=_levers(plan.runtime))
        if verdict.impossible is not None:
            return verdict
        return Verdict(lost=(*verdict.lost, *_differences(shares, layout)))

    def files(self, plan: Plan, layout: Layout) -> Mapping[str, str]:
        """``config.json``."""
        shares = _shares(plan, layout)
        model = _of(shares, layout, "diffusers")
        text = _of(shares, layout, "transformers")
        settings: dict[str, Any] = {"cuda_dtype": _DTYPES[plan.runtime.compute_dtype]}
        groups = {"Model": model, "TE": text}
        layerwise = {
            group: entry.removeprefix(_LAYERWISE_MARK)
            for group, entry in groups.items()
            if entry is not None and entry.startswith(_LAYERWISE_MARK)
        }
        sdnq = {
            group: entry
            for group, entry in groups.items()
            if entry is not None and group not in layerwise
        }
        if layerwise:
            settings["layerwise_quantization"] = list(layerwise)
            settings["layerwise_quantization_storage"] = next(iter(layerwise.values()))
        if sdnq:
            settings |= {
                "sdnq_quantize_weights": list(sdnq),
                "sdnq_quantize_mode": "pre",
                "sdnq_quantize_weights_mode": sdnq.get("Model", next(iter(sdnq.values()))),
                "sdnq_quantize_weights_mode_te": sdnq.get("TE", "Same as model"),
                "sdnq_quantize_matmul_mode": "disabled",
                "sdnq_quantize_matmul_mode_te": "disabled",
                "sdnq_modules_to_not_convert": _kept(shares, layout),
            }
        for entries in _levers(plan.runtime).values():
            settings |= entries
        settings["uiux_autoquant"] = [origin(plan), *self.carries(plan, layout).lost]
        return {_FILE: json.dumps(settings, indent=2) + "\n"}

    def next_step(self, files: Mapping[str, str]) -> str:
        """How to use it."""
        return f"merge {_FILE} into SD.Next's own config.json while it is not running"


def _levers(runtime: Runtime) -> dict[str, dict[str, Any]]:
    """The settings of each lever that SD.Next has, by the lever's name."""
    levers: dict[str, dict[str, Any]] = {}
    if runtime.offload in _OFFLOADS:
        levers["offload"] = _OFFLOADS[runtime.offload]
    if runtime.compile != "none":
        levers["compile"] = {
            "cuda_compile": ["Model"],
            "cuda_compile_options": ["repeated"] if runtime.compile == "regional" else [],
        }
    if runtime.vae_tiling:
        levers["vae_tiling"] = {"diffusers_vae_tiling": True}
    if runtime.vae_slicing:
        levers["vae_slicing"] = {"diffusers_vae_slicing": True}
    return levers


def _shares(plan: Plan, layout: Layout) -> Shares[str]:
    return divide(plan, layout, _translate)


def _translate(
    name: str, part: PlannedComponent, component: ComponentLayout
) -> Taken[str] | Refusal:
    leaves_out = f"{name}: SD.Next also leaves out layers by a list of its own; more memory"
    if part.scheme in _LAYERWISE:
        lost = [leaves_out]
        if component.kept:
            lost.append(
                f"{name}: layerwise casting in SD.Next does not know the layers that the "
                f"plan keeps ({len(component.kept)})"
            )
        return Taken(_LAYERWISE_MARK + _LAYERWISE[part.scheme], tuple(lost))
    found = equivalent(part.scheme, _EXACT, _BY_WIDTH)
    if found is None:
        return Refusal(f"SD.Next's SDNQ has nothing as wide as {part.scheme}")
    lost = [] if found.exact else [found.loss(name, part.scheme, "SDNQ")]
    return Taken(found.name, (*lost, leaves_out))


def _of(shares: Shares[str], layout: Layout, library: str) -> str | None:
    """The setting of the components from one library: the widest, where they differ."""
    entries = [
        entry
        for name, entry in shares.entries.items()
        if layout.components[name].library == library
    ]
    return max(entries, key=_width, default=None)


def _differences(shares: Shares[str], layout: Layout) -> list[str]:
    text = {
        name: shares.entries.get(name, "nothing")
        for name, component in layout.components.items()
        if component.library == "transformers"
    }
    lost = []
    if len(set(text.values())) > 1:
        listed = ", ".join(f"{name} {entry}" for name, entry in text.items())
        setting = _of(shares, layout, "transformers")
        lost.append(f"text encoders: all of them become {setting}, where the plan has {listed}")
    if _kept(shares, layout):
        lost.append("exclusions: one list holds for all components")
    return lost


def _kept(shares: Shares[str], layout: Layout) -> str:
    # SDNQ takes a parameter's whole name for itself alone (sdnq/utils.py, check_param_name_in).
    return " ".join(
        f"{path}.weight"
        for name, entry in shares.entries.items()
        if not entry.startswith(_LAYERWISE_MARK)
        for path in layout.components[name].unfused.kept
    )


def _width(entry: str) -> int:
    digits = "".join(character for character in entry.partition("_")[0] if character.isdigit())
    return int(digits or 0)
