"""Target ``comfyui``: an API-format workflow that draws the plan's first image.

Nodes and values: ComfyUI nodes.py at 02217e36 and comfy/cli_args.py at 03294572, ComfyUI-GGUF
nodes.py at 795e4515. The files that a workflow names are single files in ComfyUI's own models
folder; ComfyUI reads no diffusers folders.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autoquant.planner.emit.base import Verdict, impossible
from autoquant.planner.emit.equivalents import equivalent
from autoquant.planner.emit.layout import ComponentLayout, Layout
from autoquant.planner.emit.shares import Refusal, Shares, Taken, divide
from autoquant.planner.emit.wording import origin
from autoquant.search_spaces.scheme import Scheme

if TYPE_CHECKING:
    from autoquant.planner.plan import Plan, PlannedComponent

_FILE = "workflow_api.json"
_EXACT = {
    "layerwise:float8_e4m3fn": "fp8_e4m3fn",
    "layerwise:float8_e5m2": "fp8_e5m2",
}
_BY_WIDTH = {"8": "fp8_e4m3fn", "float8": "fp8_e4m3fn"}


@dataclass(frozen=True)
class _Family:
    """How ComfyUI puts a pipeline together: its loaders and what diffusers' call defaults to."""

    denoiser: str
    text_encoders: tuple[str, ...]
    clip_type: str | None
    latent: str
    guidance: float
    guidance_is_an_input: bool = False


_FAMILIES = {
    "FluxPipeline": _Family(
        "transformer", ("text_encoder", "text_encoder_2"), "flux", "EmptySD3LatentImage", 3.5, True
    ),
    "StableDiffusion3Pipeline": _Family(
        "transformer",
        ("text_encoder", "text_encoder_2", "text_encoder_3"),
        None,
        "EmptySD3LatentImage",
        7.0,
    ),
    "StableDiffusionXLPipeline": _Family(
        "unet", ("text_encoder", "text_encoder_2"), "sdxl", "EmptyLatentImage", 5.0
    ),
    "StableDiffusionPipeline": _Family(
        "unet", ("text_encoder",), "stable_diffusion", "EmptyLatentImage", 7.5
    ),
    "PixArtSigmaPipeline": _Family(
        "transformer", ("text_encoder",), "pixart", "EmptyLatentImage", 4.5
    ),
    "QwenImagePipeline": _Family(
        "transformer", ("text_encoder",), "qwen_image", "EmptySD3LatentImage", 4.0
    ),
}
# ComfyUI's own defaults; the temporal ones are for video.
_TILES = {"tile_size": 512, "overlap": 64, "temporal_size": 64, "temporal_overlap": 8}
_CLIP_LOADERS = {1: "CLIPLoader", 2: "DualCLIPLoader", 3: "TripleCLIPLoader"}


class ComfyUi:
    """float8 by a plain cast while loading, or GGUF files."""

    name = "comfyui"
    heeds_overrides = True
    summary = (
        "ComfyUI API workflow; partial for 8 bits (as a float8 cast) and GGUF files, impossible "
        "for 4 and 2 bits of other backends"
    )

    def carries(self, plan: Plan, layout: Layout) -> Verdict:
        """Never full: the cast is ComfyUI's own, and files decide for themselves."""
        if plan.pipeline.class_name not in _FAMILIES:
            return impossible(
                f"no workflow is known for a {plan.pipeline.class_name}; known are "
                f"{', '.join(_FAMILIES)}"
            )
        return _shares(plan, layout).verdict(layout, "ComfyUI", told=_told(plan))

    def files(self, plan: Plan, layout: Layout) -> Mapping[str, str]:
        """``workflow_api.json``; what is lost stands in ``_meta``, which ComfyUI skips."""
        family = _FAMILIES[plan.pipeline.class_name]
        entries = _shares(plan, layout).entries
        workflow = _workflow(plan, layout, family, entries)
        notes = [origin(plan), *(f"Lost: {loss}." for loss in self.carries(plan, layout).lost)]
        flags = _server_flags(family, entries)
        if flags:
            notes.append(f"Start ComfyUI with {flags}.")
        workflow["1"]["_meta"]["autoquant"] = notes
        return {_FILE: json.dumps(workflow, indent=2) + "\n"}

    def next_step(self, files: Mapping[str, str]) -> str:
        """What to put where."""
        inputs = [node["inputs"] for node in json.loads(files[_FILE]).values()]
        names = [
            value
            for each in inputs
            for key, value in each.items()
            if key.startswith(("unet_name", "clip_name", "vae_name"))
        ]
        return (
            f"put {', '.join(names)} into ComfyUI's models folder (or write your own files' names "
            f"into {_FILE}), then load it or POST it to /prompt"
        )


def _shares(plan: Plan, layout: Layout) -> Shares[str]:
    # The file that is loaded says the format of every tensor.
    return divide(plan, layout, _translate, mixed=("gguf",))


def _translate(
    name: str, part: PlannedComponent, component: ComponentLayout
) -> Taken[str] | Refusal:
    scheme = Scheme.parse(part.scheme)
    if scheme.backend == "gguf":
        formats = " and ".join(Scheme.parse(each).precision for each in part.choice.schemes)
        return Taken(part.scheme, (f"{name}: the GGUF file decides which layers are {formats}",))
    found = equivalent(part.scheme, _EXACT, _BY_WIDTH)
    if found is None:
        return Refusal(f"ComfyUI has no {part.scheme} and casts to float8 at least")
    lost = [] if found.exact else [found.loss(name, part.scheme, "ComfyUI")]
    if component.kept:
        lost.append(
            f"{name}: ComfyUI casts every layer, also the ones that the plan keeps "
            f"({len(component.kept)})"
        )
    if component.library != "diffusers":
        lost.append(f"{name}: text encoders are cast by a server flag, all of them or none")
    return Taken(found.name, tuple(lost))


def _server_flags(family: _Family, entries: Mapping[str, str]) -> str:
    casts = {entries[name] for name in family.text_encoders if name in entries}
    casts = {cast for cast in casts if not cast.startswith("gguf:")}
    return f"--{min(casts)}-text-enc" if casts else ""


def _workflow(
    plan: Plan, layout: Layout, family: _Family, entries: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    workload = plan.workload
    model = layout.source.rstrip("/").rpartition("/")[2]
    sample = workload.samples[0]
    guidance = family.guidance if workload.guidance_scale is None else workload.guidance_scale
    size = {"width": workload.width, "height": workload.height, "batch_size": 1}
    nodes = {
        "1": _denoiser_node(model, family, entries),
        "2": _text_encoder_node(model, family, entries),
        "3": _node("VAELoader", vae_name=f"{model}-vae.safetensors"),
        "4": _node("CLIPTextEncode", text=sample.prompt, clip=["2", 0]),
        "5": _node("CLIPTextEncode", text="", clip=["2", 0]),
        "6": _node(family.latent, **size),
        "7": _node(
            "KSampler",
            model=["1", 0],
            seed=sample.seed,
            steps=workload.steps,
            cfg=1.0 if family.guidance_is_an_input else guidance,
            sampler_name="euler",
            scheduler="simple",
            positive=["4", 0],
            negative=["5", 0],
            latent_image=["6", 0],
            denoise=1.0,
        ),
        "8": _decoder_node(plan.runtime.vae_tiling),
        "9": _node("SaveImage", images=["8", 0], filename_prefix="autoquant"),
    }
    if family.guidance_is_an_input:
        nodes["10"] = _node("FluxGuidance", conditioning=["4", 0], guidance=guidance)
        nodes["7"]["inputs"]["positive"] = ["10", 0]
    return nodes


def _told(plan: Plan) -> set[str]:
    return {"vae_tiling"} if plan.runtime.vae_tiling else set()


def _decoder_node(tiled: bool) -> dict[str, Any]:
    linked = {"samples": ["7", 0], "vae": ["3", 0]}
    return _node("VAEDecodeTiled", **linked, **_TILES) if tiled else _node("VAEDecode", **linked)


def _denoiser_node(model: str, family: _Family, entries: Mapping[str, str]) -> dict[str, Any]:
    entry = entries.get(family.denoiser, "default")
    if entry.startswith("gguf:"):
        return _node("UnetLoaderGGUF", unet_name=f"{model}-{Scheme.parse(entry).precision}.gguf")
    return _node("UNETLoader", unet_name=f"{model}.safetensors", weight_dtype=entry)


def _text_encoder_node(model: str, family: _Family, entries: Mapping[str, str]) -> dict[str, Any]:
    inputs: dict[str, str] = {}
    names = family.text_encoders
    for number, name in enumerate(names, start=1):
        entry = entries.get(name, "")
        is_gguf = entry.startswith("gguf:")
        ending = f"-{Scheme.parse(entry).precision}.gguf" if is_gguf else ".safetensors"
        inputs["clip_name" if len(names) == 1 else f"clip_name{number}"] = f"{model}-{name}{ending}"
    if family.clip_type is not None:
        inputs["type"] = family.clip_type
    any_gguf = any(value.endswith(".gguf") for value in inputs.values())
    return _node(_CLIP_LOADERS[len(names)] + ("GGUF" if any_gguf else ""), **inputs)


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": class_type}}
