"""A count of the bytes behind all live tensors, kept while the code runs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass_type
from torch.utils._pytree import tree_iter

from autoquant.storage import module_tensors, owned_tensors


class TensorTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows each distinct storage from the operation that makes it until it dies.

    Process memory cannot tell this: the C allocator reuses freed pages, so a process does not grow
    when a step allocates what the last one freed. A storage that several tensors view counts once.
    Not seen are: tensors made before the mode was entered, unless held or viewed inside, and the
    scratch space that one kernel allocates and frees inside itself, such as a convolution's packed
    input or what a fused 4-bit product dequantizes into.

    Args:
        device_type: The only kind of storage that counts. Loaders build a skeleton of ``meta``
            tensors first, which takes no memory; ``meta`` here predicts a run without weights.
    """

    def __init__(self, device_type: str = "cpu") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_bytes = 0
        self.peak_bytes = 0
        self._device_type = device_type
        self._live: dict[int, tuple[weakref.ref[torch.UntypedStorage], int]] = {}

    def hold(self, module: torch.nn.Module) -> None:
        """Count the storages that ``module`` keeps alive, until each of them dies."""
        for tensor in module_tensors(module):
            self._count(tensor)

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        # A wrapper subclass that goes first comes back here with its inner operations, so that the
        # tensors it dequantizes into are counted as well.
        if any(is_traceable_wrapper_subclass_type(kind) for kind in types):
            return NotImplemented
        result = self._decomposed(func, args, kwargs or {})
        if result is NotImplemented:
            result = func(*args, **(kwargs or {}))
        for leaf in tree_iter(result):
            if isinstance(leaf, torch.Tensor):
                for tensor in owned_tensors(leaf):
                    self._count(tensor)
        return result

    def _decomposed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # In inference mode an operation that is made of others arrives whole; its parts allocate.
        if not (torch.is_inference_mode_enabled() and isinstance(func, torch._ops.OpOverload)):
            return NotImplemented
        with self:
            return func.decompose(*args, **kwargs)

    def _count(self, tensor: torch.Tensor) -> None:
        if tensor.device.type != self._device_type:
            return
        storage = tensor.untyped_storage()
        key, n_bytes = storage._cdata, storage.nbytes()
        known = self._live.get(key)
        if known is None:
            reference = weakref.ref(storage, lambda _: self._forget(key))
        elif known[1] != n_bytes:  # resized in place
            self.live_bytes -= known[1]
            reference = known[0]
        else:
            return
        self._live[key] = (reference, n_bytes)
        self.live_bytes += n_bytes
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _forget(self, key: int) -> None:
        self.live_bytes -= self._live.pop(key)[1]
