"""Read a cache-dit YAML with cache-dit itself, and quantize the demo's components with it.

Usage: cache_dit_probe.py FILE PIPELINE. Prints, as JSON, unknown keys and types, and for each
component the layers that cache-dit quantizes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cache_dit
import torch
import yaml
from cache_dit.quantization.config import QuantizeConfig
from cache_dit.quantization.torchao.quantize_ao import _ALLOWED_QUANTIZE_TYPES, quantize_ao
from diffusers import DiffusionPipeline

# cache-dit refuses to quantize without CUDA, before it has looked at anything.
quantize_ao.__globals__["_check_if_module_can_quantized"] = lambda module: True

path, source = sys.argv[1:]
entries = yaml.safe_load(Path(path).read_text())["quantize_config"]
fields = set(QuantizeConfig.__dataclass_fields__)
unknown = set(entries) - fields
config = cache_dit.load_configs(path)["quantize_config"]
pipeline = DiffusionPipeline.from_pretrained(source, dtype=torch.bfloat16)
quantized = {}
for name, component in entries["components_to_quantize"].items():
    unknown |= set(component) - fields
    if component["quant_type"] not in _ALLOWED_QUANTIZE_TYPES:
        unknown.add(component["quant_type"])
    module = getattr(pipeline, name)
    quantize_ao(module, QuantizeConfig(**component))
    quantized[name] = [
        layer_path
        for layer_path, layer in module.named_modules()
        if isinstance(layer, torch.nn.Linear) and type(layer.weight.data) is not torch.Tensor
    ]
print(
    json.dumps(
        {
            "unknown": sorted(unknown),
            "types": config.component_quant_types(),
            "quantized": quantized,
        }
    )
)
