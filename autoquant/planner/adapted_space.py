"""What is open to components that have LoRA adapters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from autoquant.errors import InputError
from autoquant.planner.loras import Adapter, by_component
from autoquant.search_spaces.compatibility import conflicts
from autoquant.search_spaces.scheme import NONE
from autoquant.search_spaces.space import SearchSpace, Struck

if TYPE_CHECKING:
    from torch import nn


def with_adapters(
    before: Mapping[str, tuple[Adapter, ...]], further: Iterable[Adapter]
) -> dict[str, tuple[Adapter, ...]]:
    """The adapters of each component, with ``further`` ones.

    Raises:
        InputError: A component has one of that name.
    """
    every = [adapter for own in before.values() for adapter in own]
    for adapter in further:
        if any((it.component, it.name) == (adapter.component, adapter.name) for it in every):
            raise InputError(
                f"{adapter.component} has an adapter {adapter.name!r} already: rename the file."
            )
        every.append(adapter)
    return by_component(every)


def for_adapters(
    space: SearchSpace,
    adapters: Mapping[str, tuple[Adapter, ...]],
    modules: Mapping[str, nn.Module],
    device_type: str,
    **conditions: Any,
) -> tuple[SearchSpace, tuple[str, ...]]:
    """``space`` without what cannot take adapters, and what a reader of the plan should know.

    Args:
        space: What is open without them.
        adapters: Those of each component.
        modules: The pipeline's modules; they may be on the meta device.
        device_type: torch's device type.
        conditions: Further arguments of ``compatibility.conflicts``.
    """
    components = dict(space.components)
    struck = list(space.struck)
    notes = []
    for name, own in adapters.items():
        gb = sum(adapter.stored_bytes for adapter in own) / 2**30
        scaled = ", ".join(f"{adapter.name} (scale {adapter.scale:g})" for adapter in own)
        notes.append(f"{name} has the LoRA adapters {scaled} in every candidate: {gb:.6f} GB.")
        if name not in components:
            continue
        module = modules[name]
        full_name = f"{type(module).__module__.partition('.')[0]}.{type(module).__name__}"
        kept = []
        for scheme in components[name].schemes:
            against = (
                []
                if scheme == NONE
                else conflicts(scheme, device_type, component=full_name, lora=True, **conditions)
            )
            if against:
                reason = f"with LoRA adapters: {against[0].reason}"
                struck.append(Struck(component=name, scheme=scheme, reason=reason))
            else:
                kept.append(scheme)
        if len(components[name].fuse_qkv) > 1:
            notes.append(
                f"The projections of {name} are not fused: its adapters belong to single ones."
            )
        components[name] = components[name].model_copy(
            update={"schemes": tuple(kept), "fuse_qkv": (False,)}
        )
    narrowed = space.model_copy(update={"components": components, "struck": tuple(struck)})
    return narrowed, tuple(notes)
