"""LoRA adapters among the shapes of a pipeline: a component of their own, never quantized."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError, safe_open

from autoquant.errors import InputError
from autoquant.planner.footprint.shapes import ComponentShapes, ModelShapes, TensorShape


def with_adapter_files(model: ModelShapes, files: Iterable[Path]) -> ModelShapes:
    """``model`` with the weights that adapters in safetensors files add to it.

    Raises:
        InputError: A file cannot be read.
    """
    components = dict(model.components)
    for number, file in enumerate(files):
        name = f"adapter {number}"
        components[name] = ComponentShapes(
            name=name, library="peft", class_name="LoraModel", config={}, tensors=_tensors(file)
        )
    return replace(model, components=components)


def _tensors(file: Path) -> dict[str, TensorShape]:
    try:
        with safe_open(file.expanduser(), framework="numpy") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {
                name: TensorShape.plain(part.get_dtype(), tuple(part.get_shape()))
                for name, part in slices.items()
            }
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file} is no sound safetensors file: {error}.") from error
