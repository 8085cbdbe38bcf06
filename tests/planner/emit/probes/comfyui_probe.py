"""Let ComfyUI itself check a workflow, and ComfyUI-GGUF read a file.

Usage: comfyui_probe.py COMFYUI COMFYUI_GGUF BASE validate WORKFLOW
       comfyui_probe.py COMFYUI COMFYUI_GGUF BASE read FILE.gguf OUTPUT.npz

BASE is an empty folder for models. ``validate`` puts empty files of the names that the workflow
asks for there, and prints, as JSON, what ``/prompt`` would answer. ``read`` stores the numbers
that ComfyUI-GGUF sees in every tensor of a GGUF file.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from pathlib import Path

comfyui, comfyui_gguf, base, verb, *rest = sys.argv[1:]
sys.path.insert(0, comfyui)
sys.argv = ["main.py", "--cpu", "--base-directory", base]
FOLDERS = {"unet_name": "diffusion_models", "clip_name": "text_encoders", "vae_name": "vae"}

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()


def validate(workflow: str) -> None:
    prompt = json.loads(Path(workflow).read_text())
    for node in prompt.values():
        for name, value in node["inputs"].items():
            for beginning, folder in FOLDERS.items():
                if name.startswith(beginning):
                    path = Path(base, "models", folder, value)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.touch()
    import execution
    import nodes

    async def check() -> None:
        for extra in ("nodes_flux", "nodes_sd3"):
            path = str(Path(comfyui, "comfy_extras", f"{extra}.py"))
            assert await nodes.load_custom_node(path, module_parent="comfy_extras")
        assert await nodes.load_custom_node(comfyui_gguf)
        valid, error, outputs, node_errors = await execution.validate_prompt("1", prompt, None)
        found = {"valid": valid, "error": error, "outputs": outputs, "node_errors": node_errors}
        print(json.dumps(found, default=str))

    asyncio.run(check())


def read(path: str, output: str) -> None:
    import numpy as np
    import torch

    sys.path.insert(0, str(Path(comfyui_gguf).parent))
    package = Path(comfyui_gguf).name
    loader = importlib.import_module(f"{package}.loader")
    dequant = importlib.import_module(f"{package}.dequant")
    tensors = loader.gguf_sd_loader(path)
    # Its default is float16, in which no other reader computes.
    in_float32 = {"dtype": torch.float32, "dequant_dtype": torch.float32}
    numbers = {
        name: dequant.dequantize_tensor(each, **in_float32).numpy()
        for name, each in tensors.items()
    }
    np.savez(output, **numbers)
    print(json.dumps({"tensors": len(numbers)}))


{"validate": validate, "read": read}[verb](*rest)
