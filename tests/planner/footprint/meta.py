"""Shapes of a module, as its header would tell them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from autoquant.planner.footprint.shapes import ComponentShapes, TensorShape

_DTYPES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
}


def shapes_of(module: torch.nn.Module, name: str = "transformer") -> ComponentShapes:
    config: Any = module.config
    values = dict(config) if isinstance(config, Mapping) else config.to_dict()
    tensors: dict[str, TensorShape] = {}
    seen: set[int] = set()
    for key, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[key] = TensorShape.plain(_DTYPES[tensor.dtype], tuple(tensor.shape))
    library = type(module).__module__.partition(".")[0]
    return ComponentShapes(name, library, type(module).__name__, values, tensors)
