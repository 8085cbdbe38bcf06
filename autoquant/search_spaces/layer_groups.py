"""Groups of layers that may be sensitive together, found by watching a model run.

Names differ from family to family; what a layer is fed with, and when, does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from autoquant.search_spaces.backends import backend
from autoquant.search_spaces.exclusions import covers
from autoquant.search_spaces.linears import linears, plain_linears
from autoquant.search_spaces.scheme import NONE, Scheme

if TYPE_CHECKING:
    from torch import nn

EMBEDDERS = "embedders"
MODULATION = "modulation"
ATTENTION = "attention"
FEED_FORWARD = "feed-forward"
FINAL = "final projection"
UNUSED = "not called"

_DEPTHS = ("early", "middle", "late")
_ATTENTION = re.compile(r"attention|attn", re.IGNORECASE)


class LayerGroup(BaseModel):
    """Layers of one component that are kept or quantized together.

    Attributes:
        name: Like ``attention, early blocks``.
        layers: Exact paths of its linear layers, in module order.
        weights: How many weights they hold.
        schemes: Those under which at least one of the layers can be quantized.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    layers: tuple[str, ...]
    weights: int
    schemes: tuple[str, ...] = ()


@dataclass
class Calls:
    """Which linear layers of a module ran.

    Attributes:
        order: Their paths in the order of the first call.
        per_image: Those that were fed one vector an image, and no sequence.
    """

    order: list[str] = field(default_factory=list)
    per_image: set[str] = field(default_factory=set)


@contextmanager
def watch_calls(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Calls]]:
    """Record the calls of every linear layer inside the region, by component."""
    calls = {name: Calls() for name in modules}
    with ExitStack() as hooks:
        for name, module in modules.items():
            for path, layer in linears(module).items():
                handle = layer.register_forward_pre_hook(_recorder(calls[name], path))
                hooks.callback(handle.remove)
        yield calls


def layer_groups(
    module: nn.Module, calls: Calls, schemes: Iterable[str] = ()
) -> tuple[LayerGroup, ...]:
    """Divide the quantizable layers of ``module`` into at most ten groups.

    A block is a child of an outermost ``nn.ModuleList``. Inside the blocks, layers fed one vector
    an image modulate; layers inside an attention module attend; the others are feed-forward. Both
    of these are divided by depth. Before the first block lie the embedders; after it, one vector an
    image modulates and a sequence is the final projection.

    Args:
        module: Not quantized yet.
        calls: What ``watch_calls`` saw of it.
        schemes: Those that may be tried on it; ``none`` is passed over.
    """
    blocks = _blocks(module)
    first_call = {path: place for place, path in enumerate(calls.order)}
    depths = _depths(blocks, calls.order)
    first_block = min(
        (first_call[path] for path in calls.order if _block_of(path, blocks)), default=-1
    )
    members: dict[str, list[str]] = {}
    for path in plain_linears(module):
        if path not in first_call:
            name = UNUSED
        elif block := _block_of(path, blocks):
            role = _role(module, path, block, calls)
            name = role if role == MODULATION or not depths else f"{role}, {depths[block]} blocks"
        elif first_call[path] < first_block:
            name = EMBEDDERS
        else:
            name = MODULATION if path in calls.per_image else FINAL
        members.setdefault(name, []).append(path)
    weights = {path: layer.weight.numel() for path, layer in linears(module).items()}
    eligible = {
        scheme: _eligible(module, scheme)
        for scheme in schemes
        if scheme != NONE and Scheme.parse(scheme).excludes
    }
    return tuple(
        LayerGroup(
            name=name,
            layers=tuple(members[name]),
            weights=sum(weights[path] for path in members[name]),
            schemes=tuple(s for s, paths in eligible.items() if paths & set(members[name])),
        )
        for name in sorted(members, key=_reading_order)
    )


def smallest_exclusions(layers: Iterable[str], every_layer: Sequence[str]) -> tuple[str, ...]:
    """The fewest module paths that cover ``layers`` and no other of ``every_layer``."""
    chosen = set(layers)
    kept_apart = [path for path in every_layer if path not in chosen]
    found: list[str] = []
    for path in sorted(chosen):
        if any(covers(root, path) for root in found):
            continue
        parts = path.split(".")
        ancestors = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
        found.append(
            next(root for root in ancestors if not any(covers(root, p) for p in kept_apart))
        )
    return tuple(sorted(found))


def _eligible(module: nn.Module, scheme: str) -> set[str]:
    owner = Scheme.parse(scheme)
    return set(backend(owner.backend).quantizable_layers(module, owner.precision))


def _recorder(calls: Calls, path: str) -> Any:
    def record(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        del layer
        if path in calls.order:
            return
        calls.order.append(path)
        fed = arguments[0]
        if fed.ndim <= 2 or all(length == 1 for length in fed.shape[1:-1]):
            calls.per_image.add(path)

    return record


def _blocks(module: nn.Module) -> tuple[str, ...]:
    """Children of the outermost lists, those with linear layers, in module order."""
    from torch import nn

    holders = list(linears(module))
    lists = [path for path, part in module.named_modules() if type(part) is nn.ModuleList]
    outermost = [
        path for path in lists if not any(covers(other, path) for other in lists if other != path)
    ]
    return tuple(
        f"{path}.{name}"
        for path in outermost
        for name, _ in module.get_submodule(path).named_children()
        if any(covers(f"{path}.{name}", layer) for layer in holders)
    )


def _block_of(path: str, blocks: Sequence[str]) -> str | None:
    return next((block for block in blocks if covers(block, path)), None)


def _depths(blocks: Sequence[str], order: Sequence[str]) -> dict[str, str]:
    """Thirds of the blocks in the order in which they run; nothing where there are fewer."""
    ran = [block for path in order if (block := _block_of(path, blocks)) is not None]
    sequence = list(dict.fromkeys(ran))
    if len(sequence) < len(_DEPTHS):
        return {}
    return {
        block: _DEPTHS[place * len(_DEPTHS) // len(sequence)]
        for place, block in enumerate(sequence)
    }


def _role(module: nn.Module, path: str, block: str, calls: Calls) -> str:
    if path in calls.per_image:
        return MODULATION
    inner = path.removeprefix(f"{block}.").split(".")[:-1]
    owners = [".".join([block, *inner[:length]]) for length in range(1, len(inner) + 1)]
    attends = any(_ATTENTION.search(type(module.get_submodule(o)).__name__) for o in owners)
    return ATTENTION if attends else FEED_FORWARD


def _reading_order(name: str) -> tuple[int, int]:
    role, _, depth = name.partition(", ")
    roles = (EMBEDDERS, MODULATION, ATTENTION, FEED_FORWARD, FINAL, UNUSED)
    return roles.index(role), [*_DEPTHS, ""].index(depth.removesuffix(" blocks"))
