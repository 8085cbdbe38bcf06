"""The bytes a module really holds.

``numel() * element_size()`` and ``get_memory_footprint()`` report the compute dtype for torchao
and quanto tensors and miss the scales that bitsandbytes hangs beside its weights, so a model that
was quantized to a quarter looks untouched. Here every tensor is opened down to the storages it
owns, and a storage that several tensors share counts once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

# What bitsandbytes keeps beside a weight, on the parameter and on the layer's `state`
# (bitsandbytes/functional.py QuantState; nn/modules.py Int8Params, MatmulLtState).
_QUANT_STATE_TENSORS = ("absmax", "code", "offset")
_INT8_TENSORS = ("CB", "SCB")
# The bias, and the scales of activations that quanto's QLinear keeps even where it uses none.
_NOT_OF_THE_WEIGHT = ("bias", "input_scale", "output_scale")


def owned_tensors(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the plain tensors behind ``tensor``: those inside a wrapper subclass, and scales."""
    wrapper: Any = tensor
    if is_traceable_wrapper_subclass(wrapper):
        inner_names, _ = wrapper.__tensor_flatten__()
        for inner_name in inner_names:
            yield from owned_tensors(getattr(tensor, inner_name))
        return
    yield tensor
    yield from _quant_state_tensors(getattr(tensor, "quant_state", None))
    yield from _attribute_tensors(tensor, _INT8_TENSORS)


def module_tensors(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Yield every plain tensor that ``module`` keeps alive: parameters, buffers and scales."""
    for parameter in module.parameters():
        yield from owned_tensors(parameter)
    for buffer in module.buffers():
        yield from owned_tensors(buffer)
    for submodule in module.modules():
        yield from _attribute_tensors(getattr(submodule, "state", None), _INT8_TENSORS)


def storages(tensors: Iterator[torch.Tensor]) -> Iterator[torch.UntypedStorage]:
    """Yield each distinct storage behind ``tensors`` once."""
    seen: set[int] = set()
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage._cdata not in seen:
            seen.add(storage._cdata)
            yield storage


def held_bytes(*modules: torch.nn.Module) -> int:
    """Bytes of all distinct storages that ``modules`` hold; storages shared between them once."""
    tensors = (tensor for module in modules for tensor in module_tensors(module))
    return sum(storage.nbytes() for storage in storages(tensors))


def weight_bytes(layer: torch.nn.Module) -> int:
    """Bytes behind ``layer.weight`` alone, scales and zero points included.

    SDNQ keeps those as tensors of their own beside the weight, ModelOpt in a module below it.
    """
    tensors = [
        *(
            owned
            for name, tensor in (
                *layer.named_parameters(),
                *layer.named_buffers(),
            )
            if name not in _NOT_OF_THE_WEIGHT
            for owned in owned_tensors(tensor)
        ),
        *_attribute_tensors(getattr(layer, "state", None), _INT8_TENSORS),
    ]
    return sum(storage.nbytes() for storage in storages(iter(tensors)))


def _quant_state_tensors(quant_state: Any) -> Iterator[torch.Tensor]:
    if quant_state is None:
        return
    yield from _attribute_tensors(quant_state, _QUANT_STATE_TENSORS)
    yield from _quant_state_tensors(getattr(quant_state, "state2", None))


def _attribute_tensors(owner: Any, names: tuple[str, ...]) -> Iterator[torch.Tensor]:
    for name in names:
        value = getattr(owner, name, None)
        if isinstance(value, torch.Tensor):
            yield value
