"""The shapes of a pipeline in memory, from its modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from autoquant.planner.footprint.shapes import ComponentShapes, ModelShapes, TensorShape

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def shapes_of_pipeline(pipeline: Any) -> ModelShapes:
    """The shapes that the pipeline's headers and configs would tell, if it were saved."""
    modules = {
        name: module
        for name, module in pipeline.components.items()
        if isinstance(module, torch.nn.Module)
    }
    return ModelShapes(
        type(pipeline).__name__,
        {name: shapes_of(module, name) for name, module in modules.items()},
    )


def shapes_of(module: torch.nn.Module, name: str = "transformer") -> ComponentShapes:
    """The shapes of one module; a tensor that it holds under two names counts once."""
    config: Any = getattr(module, "config", {})
    values = dict(config) if isinstance(config, Mapping) else config.to_dict()
    distinct: dict[int, tuple[str, torch.Tensor]] = {}
    for key, tensor in module.state_dict(keep_vars=True).items():
        distinct.setdefault(id(tensor), (key, tensor))
    return ComponentShapes(
        name=name,
        library=type(module).__module__.partition(".")[0],
        class_name=type(module).__name__,
        config=values,
        tensors={
            key: TensorShape.plain(_DTYPES.get(tensor.dtype, "U8"), tuple(tensor.shape))
            for key, tensor in distinct.values()
        },
    )
