"""Checked with ComfyUI's own validation where it is, with comfy-cli 1.23.0, and against a schema.

The nodes of the schema are those that the workflows use, as ComfyUI's own ``/object_info`` would
describe them, from nodes.py at 02217e36, comfy_extras/nodes_flux.py and nodes_sd3.py, and
ComfyUI-GGUF's nodes.py at 795e4515.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autoquant.errors import InputError
from autoquant.planner.candidate import Runtime
from autoquant.planner.emit.comfyui import ComfyUi
from autoquant.planner.emit.layout import ComponentLayout, Layout
from autoquant.planner.plan import PlannedComponent, PlannedPipeline
from tests.planner.emit.conftest import PlanFor
from tests.planner.emit.real_tools import probe, run_python, tool_directory

CLIP_TYPES = ["stable_diffusion", "sd3", "pixart", "qwen_image"]
DUAL_CLIP_TYPES = ["sdxl", "sd3", "flux"]
CASTS = ["default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"]
SIZE = {"width": "INT", "height": "INT", "batch_size": "INT"}
FILE = "FILE"

# Class: inputs by name, and what it gives. A list is an enumeration, FILE any file name.
NODES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "UNETLoader": ({"unet_name": FILE, "weight_dtype": CASTS}, ("MODEL",)),
    "UnetLoaderGGUF": ({"unet_name": FILE}, ("MODEL",)),
    "CLIPLoader": ({"clip_name": FILE, "type": CLIP_TYPES}, ("CLIP",)),
    "DualCLIPLoader": (
        {"clip_name1": FILE, "clip_name2": FILE, "type": DUAL_CLIP_TYPES},
        ("CLIP",),
    ),
    "DualCLIPLoaderGGUF": (
        {"clip_name1": FILE, "clip_name2": FILE, "type": DUAL_CLIP_TYPES},
        ("CLIP",),
    ),
    "TripleCLIPLoader": ({f"clip_name{n}": FILE for n in (1, 2, 3)}, ("CLIP",)),
    "VAELoader": ({"vae_name": FILE}, ("VAE",)),
    "CLIPTextEncode": ({"text": "STRING", "clip": "CLIP"}, ("CONDITIONING",)),
    "FluxGuidance": (
        {"conditioning": "CONDITIONING", "guidance": "FLOAT"},
        ("CONDITIONING",),
    ),
    "EmptyLatentImage": (SIZE, ("LATENT",)),
    "EmptySD3LatentImage": (SIZE, ("LATENT",)),
    "KSampler": (
        {
            "model": "MODEL",
            "seed": "INT",
            "steps": "INT",
            "cfg": "FLOAT",
            "sampler_name": ["euler", "dpmpp_2m"],
            "scheduler": ["simple", "normal"],
            "positive": "CONDITIONING",
            "negative": "CONDITIONING",
            "latent_image": "LATENT",
            "denoise": "FLOAT",
        },
        ("LATENT",),
    ),
    "VAEDecode": ({"samples": "LATENT", "vae": "VAE"}, ("IMAGE",)),
    "VAEDecodeTiled": (
        {
            "samples": "LATENT",
            "vae": "VAE",
            **dict.fromkeys(("tile_size", "overlap", "temporal_size", "temporal_overlap"), "INT"),
        },
        ("IMAGE",),
    ),
    "SaveImage": ({"images": "IMAGE", "filename_prefix": "STRING"}, ()),
}
TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
COMPONENTS = {
    "FluxPipeline": ("transformer", 2),
    "StableDiffusion3Pipeline": ("transformer", 3),
    "StableDiffusionXLPipeline": ("unet", 2),
    "StableDiffusionPipeline": ("unet", 1),
    "PixArtSigmaPipeline": ("transformer", 1),
    "QwenImagePipeline": ("transformer", 1),
}


def object_info(workflow: dict[str, Any]) -> dict[str, Any]:
    """What a ComfyUI would say of these nodes if it had the workflow's files."""
    files = [
        value
        for node in workflow.values()
        for value in node["inputs"].values()
        if isinstance(value, str) and value.endswith((".safetensors", ".gguf"))
    ]
    return {
        name: {
            "input": {
                "required": {
                    key: [files if kind is FILE else kind, {}] for key, kind in inputs.items()
                },
                "optional": {},
            },
            "input_order": {"required": list(inputs), "optional": []},
            "output": list(outputs),
            "output_is_list": [False] * len(outputs),
            "output_name": list(outputs),
            "name": name,
            "display_name": name,
            "description": "",
            "python_module": "nodes",
            "category": "",
            "output_node": not outputs,
        }
        for name, (inputs, outputs) in NODES.items()
    }


def require_fits(workflow: dict[str, Any]) -> None:
    """Every input of every node is there, of its type, and linked to what gives that type."""
    for node in workflow.values():
        inputs, _ = NODES[node["class_type"]]
        assert set(node["inputs"]) == set(inputs)
        for name, value in node["inputs"].items():
            kind = inputs[name]
            if isinstance(value, list):
                source, index = value
                assert NODES[workflow[source]["class_type"]][1][index] == kind
            elif isinstance(kind, list):
                assert value in kind
            elif kind is FILE:
                assert "/" not in value
            else:
                assert isinstance(value, {"STRING": str, "INT": int, "FLOAT": float}[kind])


def workflow_of(plan_for: PlanFor, class_name: str, denoiser: str, text: str) -> dict[str, Any]:
    denoiser_name, count = COMPONENTS[class_name]
    names = TEXT_ENCODERS[:count]
    plan = plan_for(**{denoiser_name: denoiser}, **dict.fromkeys(names, text)).model_copy(
        update={"pipeline": PlannedPipeline(class_name=class_name, source="owner/model")}
    )
    layout = Layout(
        "owner/model",
        {denoiser_name: ComponentLayout("diffusers", "Denoiser")}
        | {name: ComponentLayout("transformers", "Encoder") for name in names},
    )
    files = ComfyUi().files(plan, layout)
    workflow: dict[str, Any] = json.loads(files["workflow_api.json"])
    return workflow


@pytest.mark.parametrize("class_name", COMPONENTS)
def test_every_family_fits_the_nodes(class_name: str, plan_for: PlanFor) -> None:
    workflow = workflow_of(plan_for, class_name, "layerwise:float8_e5m2", "quanto:int8")
    require_fits(workflow)
    assert workflow["1"]["inputs"]["weight_dtype"] == "fp8_e5m2"
    assert "Start ComfyUI with --fp8_e4m3fn-text-enc." in workflow["1"]["_meta"]["autoquant"]


def test_tiling_is_a_node(plan_for: PlanFor, tmp_path: Path) -> None:
    plan = plan_for(transformer="gguf:Q8_0").model_copy(
        update={"runtime": Runtime(vae_tiling=True)}
    )
    plan.emit("comfyui", tmp_path / "out", force=True)
    workflow = json.loads((tmp_path / "out/workflow_api.json").read_text())
    require_fits(workflow)
    assert workflow["8"]["class_type"] == "VAEDecodeTiled"


def test_gguf_is_loaded_from_files(plan_for: PlanFor) -> None:
    workflow = workflow_of(plan_for, "FluxPipeline", "gguf:Q8_0", "gguf:Q5_0")
    require_fits(workflow)
    assert workflow["1"]["inputs"]["unet_name"] == "model-Q8_0.gguf"
    assert workflow["2"]["class_type"] == "DualCLIPLoaderGGUF"


@pytest.mark.parametrize("scheme", ["layerwise:float8_e4m3fn", "gguf:Q8_0"])
def test_comfy_cli_finds_no_fault(plan_for: PlanFor, tmp_path: Path, scheme: str) -> None:
    workflow = workflow_of(plan_for, "FluxPipeline", scheme, "none")
    (tmp_path / "workflow.json").write_text(json.dumps(workflow))
    (tmp_path / "object_info.json").write_text(json.dumps(object_info(workflow)))
    printed = run_python(
        *("-m", "comfy_cli", "--skip-prompt", "--no-enable-telemetry", "--json"),
        *("workflow", "validate", "--workflow", tmp_path / "workflow.json"),
        *("--input", tmp_path / "object_info.json"),
        path=tool_directory("comfy"),
        cwd=tmp_path,
    )
    answer = json.loads(printed.strip().splitlines()[-1])
    assert answer["ok"], answer
    assert answer["data"]["valid"], answer


@pytest.mark.parametrize(
    ("class_name", "scheme"),
    [("FluxPipeline", "gguf:Q8_0"), ("StableDiffusionXLPipeline", "layerwise:float8_e5m2")],
)
def test_comfyui_itself_finds_no_fault(
    plan_for: PlanFor, tmp_path: Path, class_name: str, scheme: str
) -> None:
    workflow = workflow_of(plan_for, class_name, scheme, scheme)
    answer = comfyui_answer(workflow, tmp_path)
    assert answer["valid"], answer
    assert answer["node_errors"] == {}
    assert answer["outputs"] == ["9"]


def test_comfyui_itself_does_find_faults(plan_for: PlanFor, tmp_path: Path) -> None:
    workflow = workflow_of(plan_for, "FluxPipeline", "layerwise:float8_e5m2", "none")
    workflow["1"]["inputs"]["weight_dtype"] = "fp4"
    answer = comfyui_answer(workflow, tmp_path)
    assert not answer["valid"]
    assert "fp4" in str(answer["node_errors"])


def comfyui_answer(workflow: dict[str, Any], folder: Path) -> dict[str, Any]:
    (folder / "workflow.json").write_text(json.dumps(workflow))
    answer: dict[str, Any] = probe(
        *("comfyui_probe", tool_directory("ComfyUI"), tool_directory("ComfyUI-GGUF")),
        *(folder / "base", "validate", folder / "workflow.json"),
        path=tool_directory("comfyui_deps"),
    )
    return answer


def test_4_bits_are_refused(plan_for: PlanFor, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="comfyui cannot carry this plan: transformer: ComfyUI"):
        plan_for(transformer="bitsandbytes:nf4").emit("comfyui", tmp_path / "out", force=True)


def test_an_unknown_family_is_refused(plan_for: PlanFor) -> None:
    plan = plan_for(transformer="none").model_copy(
        update={"pipeline": PlannedPipeline(class_name="OtherPipeline", source="owner/model")}
    )
    verdict = ComfyUi().carries(plan, Layout("owner/model"))
    assert verdict.level == "impossible"
    assert "FluxPipeline" in str(verdict.impossible)


def test_what_is_lost_is_said(plan_for: PlanFor, tmp_path: Path) -> None:
    plan = plan_for(
        transformer=PlannedComponent(scheme="layerwise:float8_e4m3fn", exclusions=("proj_out",)),
        text_encoder_2="bitsandbytes:nf4",
    )
    emitted = plan.emit("comfyui", tmp_path / "out", force=True)
    workflow = json.loads((tmp_path / "out/workflow_api.json").read_text())
    assert any("casts every layer" in loss for loss in emitted.verdict.lost)
    assert any("text_encoder_2 stays unquantized" in loss for loss in emitted.verdict.lost)
    notes = " ".join(workflow["1"]["_meta"]["autoquant"])
    assert all(loss in notes for loss in emitted.verdict.lost)
    assert workflow["4"]["inputs"]["text"] == plan.workload.prompts[0]
