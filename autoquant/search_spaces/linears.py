"""Which nn.Linear layers of a module can be quantized at all, and which hide a trap.

Everything here is read from the module: its layer types, its parameters, what its authors ask to
keep in float32, and which weights its own ``forward`` asks for their dtype. Meta tensors will do.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

# Below these sizes the scales and code books cost more than the narrow weights save: bitsandbytes
# keeps 64 bytes of code book and 4 bytes a block of 64 beside each weight (its QuantState).
SMALLEST_WIDTH = 16
SMALLEST_WEIGHT = 1024

# `self.wo.weight.dtype` (transformers T5), `self.mlp[0].weight.dtype` (diffusers Z-Image) and
# `next(iter(self.time_embedder.parameters())).dtype` (diffusers Wan): activations are cast to
# whatever the quantized weight reports.
_PATH = r"self\.(?P<path>\w+(?:\.\w+|\[\d+\])*?)"
_DTYPE_READ = re.compile(_PATH + r"\.(?:weight\.dtype\b|parameters\(\)\s*\)*\s*\.dtype\b)")
# What peft puts beside the base layer: `to_q.lora_A.style`.
_OF_AN_ADAPTER = re.compile(r"\.lora_(?:A|B)\.")
_INT8_TOLERANT = "torch.int8"

# `q_proj_weight=self.q_proj.weight` (diffusers HunyuanDiTAttentionPool): the layer is never called,
# its weight is used as a plain matrix. What is only asked about a weight does no harm.
_WEIGHT_READ = re.compile(
    r"(?<!isinstance\()" + _PATH + r"\.weight\b"
    r"(?!\s*\.(?:dtype|device|shape|ndim|requires_grad)\b)"
)


def linears(module: nn.Module) -> dict[str, nn.Linear]:
    """Every ``nn.Linear`` of ``module`` by path, subclasses included, each once.

    A layer with LoRA adapters goes by its own path, and the adapters are left out.
    """
    from torch import nn

    found = {
        path: layer
        for path, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and path
    }
    if not getattr(module, "peft_config", None):
        return found
    return {
        path.removesuffix(".base_layer"): layer
        for path, layer in found.items()
        if not _OF_AN_ADAPTER.search(path)
    }


def plain_linears(module: nn.Module) -> dict[str, nn.Linear]:
    """The layers any backend may try: exactly ``nn.Linear``, floating, untied, big enough to gain.

    A layer whose owner reads the weight without calling the layer is left out. So is a subclass,
    which may be made for that, as the output projection of ``nn.MultiheadAttention`` is.
    """
    from torch import nn

    tied = _tied_parameters(module)
    read = _read_as_matrices(module)
    return {
        path: layer
        for path, layer in linears(module).items()
        if type(layer) is nn.Linear
        and layer.weight.dtype.is_floating_point
        and layer.weight.dtype.itemsize > 1
        and f"{path}.weight" not in tied
        and path not in read
        and layer.in_features >= SMALLEST_WIDTH
        and layer.weight.numel() >= SMALLEST_WEIGHT
    }


@dataclass(frozen=True)
class DtypeSensitive:
    """Layers that break when their stored dtype is not the dtype they compute in.

    Attributes:
        layers: Paths whose stored dtype must stay a floating compute dtype.
        tolerate_int8: Those of them whose model has a branch of its own for int8 weights.
    """

    layers: frozenset[str]
    tolerate_int8: frozenset[str]


def dtype_sensitive(module: nn.Module) -> DtypeSensitive:
    """Find the layers whose dtype the model's code reads or whose authors keep in float32."""
    read: set[str] = set()
    tolerant: set[str] = set()
    reads = {
        kind: _dtype_reads(kind.forward) for kind in {type(owner) for owner in module.modules()}
    }
    for owner_path, owner in module.named_modules():
        for attribute, tolerates_int8 in reads[type(owner)]:
            path = f"{owner_path}.{attribute}" if owner_path else attribute
            read.add(path)
            if tolerates_int8:
                tolerant.add(path)
    kept = _kept_in_float32(module)
    layers = {
        path
        for path in linears(module)
        if any(path == root or path.startswith(f"{root}.") for root in read)
        or any(pattern.search(path) for pattern in kept)
    }
    return DtypeSensitive(frozenset(layers), frozenset(layers & tolerant))


def _read_as_matrices(module: nn.Module) -> set[str]:
    """Paths whose weight the ``forward`` of their owner uses without calling the layer."""
    reads = {
        kind: _weight_reads(kind.forward) for kind in {type(owner) for owner in module.modules()}
    }
    return {
        f"{owner_path}.{path}" if owner_path else path
        for owner_path, owner in module.named_modules()
        for path in reads[type(owner)]
    }


@cache
def _weight_reads(forward: Callable[..., Any]) -> tuple[str, ...]:
    """Attribute paths whose weight ``forward`` uses as a plain matrix."""
    return tuple(_module_path(match) for match in _WEIGHT_READ.finditer(_source(forward)))


def _source(forward: Callable[..., Any]) -> str:
    """The text of ``forward``; a class typed at a prompt, or compiled, has none."""
    try:
        return inspect.getsource(forward)
    except (OSError, TypeError):
        return ""


def _module_path(match: re.Match[str]) -> str:
    """``mlp[0]`` as ``named_modules()`` writes it."""
    return re.sub(r"\[(\d+)\]", r".\1", match["path"])


@cache
def _dtype_reads(forward: Callable[..., Any]) -> tuple[tuple[str, bool], ...]:
    """Attribute paths whose dtype ``forward`` reads, and whether it treats int8 apart."""
    source = _source(forward)
    tolerates_int8 = _INT8_TOLERANT in source
    paths = dict.fromkeys(_module_path(match) for match in _DTYPE_READ.finditer(source))
    return tuple((path, tolerates_int8) for path in paths)


def _kept_in_float32(module: nn.Module) -> list[re.Pattern[str]]:
    names: set[str] = set()
    for submodule in module.modules():
        for attribute in ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict"):
            declared = getattr(submodule, attribute, None)
            if isinstance(declared, (list, tuple, set, frozenset)):
                names.update(declared)
    return [re.compile(rf"(?:^|\.){re.escape(name)}(?:\.|$)") for name in sorted(names)]


def _tied_parameters(module: nn.Module) -> set[str]:
    """Names of the parameters that have a second name, or share their memory with another."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    keys = {
        name: parameter.data_ptr() or id(parameter)  # meta tensors have no address
        for name, parameter in parameters.items()
    }
    times = Counter(keys.values())
    return {name for name, key in keys.items() if times[key] > 1}
