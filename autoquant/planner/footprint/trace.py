"""The exact peak of one component, from running it on the meta device: no weights, no compute."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from autoquant.errors import UnsupportedPipeline
from autoquant.metrics.tracked_tensors import TensorTracker
from autoquant.planner.footprint.shapes import ComponentShapes
from autoquant.planner.footprint.tape import Block, Tape


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


def record(module: torch.nn.Module, call: Callable[[torch.nn.Module], Any]) -> Tape:
    """Write down what ``call(module)`` allocates beside the module."""
    recorder = _Recorder()
    recorder.hold(module)
    recorder.begin()
    with torch.no_grad(), FusedAttention(), recorder:
        result = call(module)
    del result
    return recorder.tape


class _Recorder(TensorTracker):  # type: ignore[no-untyped-call]
    """Counts like any tracker, and keeps the order of allocations and frees."""

    def __init__(self) -> None:
        super().__init__("meta")
        self.tape = Tape(itemsize=1, workspaces=False)
        self._blocks: dict[int, Block] = {}
        self._began = False

    def begin(self) -> None:
        """Write down from here on; what is held already is no part of the tape."""
        self._began = True

    def _count(self, tensor: torch.Tensor) -> None:
        key = tensor.untyped_storage()._cdata
        before = self._live.get(key)
        super()._count(tensor)
        after = self._live.get(key)
        if self._began and after is not None and after != before:
            if key in self._blocks:
                self.tape.free(self._blocks.pop(key))
            self._blocks[key] = self.tape.new(after[1])

    def _forget(self, key: int) -> None:
        super()._forget(key)
        if key in self._blocks:
            self.tape.free(self._blocks.pop(key))


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
