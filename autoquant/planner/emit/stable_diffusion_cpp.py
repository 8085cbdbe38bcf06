"""Target ``stable-diffusion.cpp``: a command line, and the arguments of its Python binding.

Options and rules: stable-diffusion.cpp at 97d29908, examples/common/common.cpp and
src/model_loader.cpp; binding stable-diffusion-cpp-python 0.4.7.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoquant.planner.emit.base import Verdict, impossible
from autoquant.planner.emit.equivalents import equivalent
from autoquant.planner.emit.layout import ComponentLayout, Layout
from autoquant.planner.emit.shares import Refusal, Shares, Taken, divide
from autoquant.planner.emit.wording import origin, yaml_header

if TYPE_CHECKING:
    from autoquant.planner.candidate import Runtime
    from autoquant.planner.plan import Plan, PlannedComponent

SHELL_NAME = "sd.sh"
JSON_NAME = "sd_python.json"

_EXACT = {
    "gguf:Q8_0": "q8_0",
    "gguf:Q5_1": "q5_1",
    "gguf:Q5_0": "q5_0",
    "gguf:Q4_1": "q4_1",
    "gguf:Q4_0": "q4_0",
    "gguf:Q2_K": "q2_K",
    "gguf:Q3_K": "q3_K",
    "gguf:Q4_K": "q4_K",
    "gguf:Q5_K": "q5_K",
    "gguf:Q6_K": "q6_K",
}
# Of the types of one width, those with blocks of 32, which most widths divide into.
_BY_WIDTH = {"8": "q8_0", "6": "q6_K", "5": "q5_1", "4": "iq4_nl", "2": "q2_K"}
_TYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}

# Where a --vae file's tensors are while they are loaded, and after they are renamed.
_VAE_RULE = r"^(vae|first_stage_model)\."


@dataclass(frozen=True)
class _Part:
    """Where stable-diffusion.cpp has a component: its option, and a pattern for its tensors."""

    option: str
    keyword: str
    pattern: str


_DIT = _Part("--diffusion-model", "diffusion_model_path", r"^model\.diffusion_model\.")
_CLIP_L = _Part("--clip_l", "clip_l_path", r"^text_encoders\.clip_l\.")
_T5 = _Part("--t5xxl", "t5xxl_path", r"^text_encoders\.t5xxl\.")
_LLM = _Part("--llm", "llm_path", r"^text_encoders\.llm\.")
_VAE = _Part("--vae", "vae_path", _VAE_RULE)
_WHOLE_UNET = _Part("-m", "model_path", r"^model\.diffusion_model\.")
_FIRST_TEXT = _Part("-m", "model_path", r"^cond_stage_model\.(transformer|model)\.")
_SECOND_TEXT = _Part("-m", "model_path", r"^cond_stage_model\.1\.")

_FAMILIES = {
    "FluxPipeline": {
        "transformer": _DIT,
        "text_encoder": _CLIP_L,
        "text_encoder_2": _T5,
        "vae": _VAE,
    },
    "StableDiffusion3Pipeline": {
        "transformer": _DIT,
        "text_encoder": _CLIP_L,
        "text_encoder_2": _Part("--clip_g", "clip_g_path", r"^text_encoders\.clip_g\."),
        "text_encoder_3": _T5,
        "vae": _VAE,
    },
    "QwenImagePipeline": {"transformer": _DIT, "text_encoder": _LLM, "vae": _VAE},
    "StableDiffusionPipeline": {
        "unet": _WHOLE_UNET,
        "text_encoder": _Part("-m", "model_path", r"^cond_stage_model\."),
        "vae": _WHOLE_UNET,
    },
    "StableDiffusionXLPipeline": {
        "unet": _WHOLE_UNET,
        "text_encoder": _FIRST_TEXT,
        "text_encoder_2": _SECOND_TEXT,
        "vae": _WHOLE_UNET,
    },
}


class StableDiffusionCpp:
    """GGML types, tensor by tensor."""

    name = "stable-diffusion.cpp"
    heeds_overrides = True
    summary = (
        "stable-diffusion.cpp command line and Python arguments; partial: its own GGML types, by "
        "component"
    )

    def carries(self, plan: Plan, layout: Layout) -> Verdict:
        """Never full: layers have other names in its single files."""
        if plan.pipeline.class_name not in _FAMILIES:
            return impossible(
                f"it is not known where stable-diffusion.cpp has the components of a "
                f"{plan.pipeline.class_name}; known are {', '.join(_FAMILIES)}"
            )
        return _shares(plan, layout).verdict(
            layout, "stable-diffusion.cpp", told=_flags(plan.runtime)
        )

    def files(self, plan: Plan, layout: Layout) -> Mapping[str, str]:
        """``sd.sh`` and ``sd_python.json``."""
        parts = _FAMILIES[plan.pipeline.class_name]
        rules = _rules(plan, parts, _shares(plan, layout).entries)
        default = _TYPES[plan.runtime.compute_dtype]
        model = layout.source.rstrip("/").rpartition("/")[2]
        paths = {
            (part.option, part.keyword): _file_name(model, name, part)
            for name, part in parts.items()
        }
        lost = self.carries(plan, layout).lost
        return {
            SHELL_NAME: _shell(plan, lost, paths, default, rules),
            JSON_NAME: _python_arguments(plan, lost, paths, default, rules),
        }

    def next_step(self, files: Mapping[str, str]) -> str:
        """What to put where."""
        return (
            f"put the single files that {SHELL_NAME} names into $MODELS (its first lines say what "
            f"they are), then: MODELS=… SD=sd-cli sh {SHELL_NAME}"
        )


def _flags(runtime: Runtime) -> dict[str, str]:
    """The option of each lever that stable-diffusion.cpp has, by the lever's name."""
    flags = {}
    if runtime.offload == "model":
        flags["offload"] = "--offload-to-cpu"
    if runtime.vae_tiling:
        flags["vae_tiling"] = "--vae-tiling"
    if runtime.attention == "flash":
        flags["attention"] = "--diffusion-fa"
    return flags


def _keywords(runtime: Runtime) -> dict[str, bool]:
    """The same for the Python binding, but for tiling, which each call is told."""
    keywords = {"offload": "offload_params_to_cpu", "attention": "diffusion_flash_attn"}
    return {keywords[lever]: True for lever in _flags(runtime) if lever in keywords}


def _shares(plan: Plan, layout: Layout) -> Shares[str]:
    return divide(plan, layout, _translate)


def _translate(
    name: str, part: PlannedComponent, component: ComponentLayout
) -> Taken[str] | Refusal:
    found = equivalent(part.scheme, _EXACT, _BY_WIDTH)
    if found is None:
        return Refusal(f"stable-diffusion.cpp has no type as wide as {part.scheme}")
    lost = [] if found.exact else [found.loss(name, part.scheme, "stable-diffusion.cpp")]
    if component.kept:
        lost.append(
            f"{name}: the layers that the plan keeps ({len(component.kept)}) have other names in "
            "single files and are not kept; embedders and final layers are never converted"
        )
    return Taken(found.name, tuple(lost))


def _rules(plan: Plan, parts: Mapping[str, _Part], entries: Mapping[str, str]) -> str:
    # The first rule that matches decides; a pattern may hold neither "," nor "=".
    return ",".join(f"{parts[name].pattern}={entry}" for name, entry in entries.items())


def _file_name(model: str, component: str, part: _Part) -> str:
    return f"{model}.safetensors" if part.option == "-m" else f"{model}-{component}.safetensors"


def _shell(
    plan: Plan,
    lost: tuple[str, ...],
    paths: Mapping[tuple[str, str], str],
    default: str,
    rules: str,
) -> str:
    workload = plan.workload
    sample = workload.samples[0]
    arguments: dict[str, object] = {
        "--type": default,
        **({"--tensor-type-rules": rules} if rules else {}),
        "-p": sample.prompt,
        "-W": workload.width,
        "-H": workload.height,
        "--steps": workload.steps,
        "-s": sample.seed,
    }
    flags = [f"  {flag}" for flag in _flags(plan.runtime).values()]
    lines = [f"  {option} {shlex.quote(str(value))}" for option, value in arguments.items()]
    files = [f'  {option} "$MODELS/"{shlex.quote(name)}' for (option, _), name in paths.items()]
    header = "#!/bin/sh\n" + yaml_header(plan, lost)
    return header + " \\\n".join(['"${SD:-sd-cli}"', *files, *lines, *flags]) + "\n"


def _python_arguments(
    plan: Plan,
    lost: tuple[str, ...],
    paths: Mapping[tuple[str, str], str],
    default: str,
    rules: str,
) -> str:
    entries: dict[str, object] = {
        "_origin": origin(plan),
        "_lost": list(lost),
        "StableDiffusion": {
            **{keyword: name for (_, keyword), name in paths.items()},
            "wtype": default,
            "tensor_type_rules": rules,
            **_keywords(plan.runtime),
        },
    }
    if plan.runtime.vae_tiling:
        entries["generate_image"] = {"vae_tiling": True}
    return json.dumps(entries, indent=2) + "\n"
