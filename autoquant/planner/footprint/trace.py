"""The exact peak of one component, from running it on the meta device: no weights, no compute."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from autoquant.errors import UnsupportedPipeline
from autoquant.metrics.tracked_tensors import TensorTracker
from autoquant.planner.footprint.shapes import ComponentShapes
from autoquant.storage import held_bytes


@dataclass(frozen=True)
class Traced:
    """What one forward on the meta device counted.

    Attributes:
        held_bytes: The component itself.
        peak_bytes: Most bytes alive at once beside it.
    """

    held_bytes: int
    peak_bytes: int


class FusedAttention(TorchFunctionMode):
    """Attention that costs what a fused kernel costs: its output and a float32 log-sum-exp.

    On the meta device PyTorch would take the path that writes out the whole matrix of scores.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, _, value = args[:3] if len(args) >= 3 else _named(args, kwargs or {})
        log_sum_exp = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        del log_sum_exp
        return out


def build(component: ComponentShapes, compute_dtype: str) -> torch.nn.Module:
    """The component on the meta device, in evaluation mode.

    Raises:
        UnsupportedPipeline: The installed libraries have no such class, or refuse its config.
    """
    library = importlib.import_module(component.library)
    kind: Any = getattr(library, component.class_name, None)
    if not isinstance(kind, type):
        raise UnsupportedPipeline(
            f"The installed {component.library} has no {component.class_name}: upgrade it."
        )
    with _default_dtype(compute_dtype), torch.device("meta"):
        if hasattr(kind, "from_config"):
            module: torch.nn.Module = kind.from_config(dict(component.config))
        else:
            settings: Any = kind
            module = settings(settings.config_class.from_dict(dict(component.config)))
    return module.eval().requires_grad_(False)


def peak(module: torch.nn.Module, call: Callable[[torch.nn.Module], Any]) -> Traced:
    """Count what ``call(module)`` allocates beside the module."""
    held = held_bytes(module)
    tracker = TensorTracker("meta")
    tracker.hold(module)
    with torch.no_grad(), FusedAttention(), tracker:
        call(module)
    return Traced(held, tracker.peak_bytes - held)


def _named(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
    names = ("query", "key", "value")
    return [*args, *(kwargs[name] for name in names[len(args) :])]


@contextmanager
def _default_dtype(name: str) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, name))
    try:
        yield
    finally:
        torch.set_default_dtype(before)
