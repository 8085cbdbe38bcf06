"""Read a OneTrainer config with OneTrainer, and quantize the demo's transformer as it says.

Usage: onetrainer_probe.py FILE PIPELINE, in OneTrainer's source. OneTrainer prints bad values and
passes over unknown keys, so what it kept is printed, as JSON, for comparison.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel
from modules.util.config.TrainConfig import TrainConfig
from modules.util.quantization_util import replace_linear_with_quantized_layers

path, source = sys.argv[1:]
entries = json.loads(Path(path).read_text())
config = TrainConfig.default_values().from_dict(entries)
kept = config.to_dict()
transformer = FluxTransformer2DModel.from_pretrained(
    source, subfolder="transformer", dtype=torch.bfloat16
)
paths = [
    layer_path
    for layer_path, layer in transformer.named_modules()
    if isinstance(layer, torch.nn.Linear)
]
replace_linear_with_quantized_layers(
    transformer, config.transformer.weight_dtype, [], config.quantization
)
print(
    json.dumps(
        {
            "kept_by_onetrainer": {
                name: {key: kept[name][key] for key in value}
                if isinstance(value, dict)
                else kept[name]
                for name, value in entries.items()
                if not name.startswith("_autoquant")
            },
            "quantized": [
                layer_path
                for layer_path in paths
                if type(transformer.get_submodule(layer_path)) is not torch.nn.Linear
            ],
        }
    )
)
