"""Pipeline directories that have headers and configs but no weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoquant.planner.footprint.shapes import ComponentShapes, ModelShapes, TensorShape

MODELS = Path(__file__).parents[3] / "examples" / "models"


def header_bytes(tensors: Mapping[str, TensorShape]) -> tuple[bytes, int]:
    """A safetensors header with its length, and the bytes of tensors that it describes."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.stored_bytes
        entries[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text, offset


def write_header(path: Path, tensors: Mapping[str, TensorShape]) -> None:
    """A safetensors file whose tensors are a hole."""
    head, data_bytes = header_bytes(tensors)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + data_bytes)


def write_component(directory: Path, part: ComponentShapes, shards: int = 1) -> None:
    """One component's folder, in shards if there are enough tensors."""
    folder = directory / part.name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(dict(part.config)))
    stem = "diffusion_pytorch_model" if part.library == "diffusers" else "model"
    names = list(part.tensors)
    if shards == 1:
        write_header(folder / f"{stem}.safetensors", part.tensors)
        return
    weight_map = {}
    for shard in range(shards):
        held = {name: part.tensors[name] for name in names[shard::shards]}
        file_name = f"{stem}-{shard + 1:05}-of-{shards:05}.safetensors"
        write_header(folder / file_name, held)
        weight_map |= dict.fromkeys(held, file_name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))


def write_pipeline(directory: Path, model: ModelShapes, shards: int = 1) -> Path:
    """A whole pipeline; the largest component in shards."""
    largest = max(model.components.values(), key=lambda part: part.stored_bytes)
    for part in model.components.values():
        write_component(directory, part, shards if part is largest else 1)
    index = {"_class_name": model.class_name, "_diffusers_version": "0.42.1"} | {
        name: [part.library, part.class_name] for name, part in model.components.items()
    }
    (directory / "model_index.json").write_text(json.dumps(index))
    return directory
