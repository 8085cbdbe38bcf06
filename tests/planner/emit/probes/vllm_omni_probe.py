"""Read a vLLM-Omni deploy file with vLLM-Omni's own converter, and load the pipeline with it.

Usage: vllm_omni_probe.py FILE PIPELINE PACKAGE. The converter is one file that imports nothing of
vLLM; the stage's fields are read from the source. Prints what is loaded, as JSON.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from pathlib import Path

import torch
import yaml
from diffusers import DiffusionPipeline

path, source, package = sys.argv[1:]
converter = Path(package) / "diffusion/models/diffusers_adapter/quantization_utils.py"
spec = importlib.util.spec_from_file_location("quantization_utils", converter)
assert spec is not None
assert spec.loader is not None
adapter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(adapter)

deploy = yaml.safe_load(Path(path).read_text())
(stage,) = deploy["stages"]
tree = ast.parse((Path(package) / "config/stage_config.py").read_text())
fields = {
    owner.name: {
        node.target.id
        for node in owner.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    for owner in tree.body
    if isinstance(owner, ast.ClassDef)
}
arguments = dict(stage["diffusers_load_kwargs"])
adapter.convert_diffusers_quantization_config(arguments)
pipeline = DiffusionPipeline.from_pretrained(
    source, dtype=getattr(torch, deploy["dtype"]), **arguments
)
print(
    json.dumps(
        {
            "unknown": sorted(
                (set(stage) - fields["StageDeployConfig"]) | (set(deploy) - fields["DeployConfig"])
            ),
            "quantized": [
                layer_path
                for layer_path, layer in pipeline.transformer.named_modules()
                if isinstance(layer, torch.nn.Linear)
                and type(layer.weight.data) is not torch.Tensor
            ],
        }
    )
)
