"""The backends that can be named in a scheme, built in or brought by another package."""

from __future__ import annotations

import difflib
import importlib.metadata

from autoquant.errors import BackendUnavailable
from autoquant.search_spaces.backends.base import Backend, Recipe
from autoquant.search_spaces.backends.bitsandbytes import Bitsandbytes
from autoquant.search_spaces.backends.gguf import Gguf
from autoquant.search_spaces.backends.layerwise import Layerwise
from autoquant.search_spaces.backends.quanto import Quanto
from autoquant.search_spaces.backends.sdnq import Sdnq
from autoquant.search_spaces.backends.torchao import Torchao

__all__ = ["ENTRY_POINTS", "Backend", "Recipe", "backend", "backends"]

ENTRY_POINTS = "autoquant.backends"
"""Entry point group of other packages' backends; each entry is a class without arguments."""

_BUILT_IN: tuple[type[Backend], ...] = (
    Bitsandbytes,
    Torchao,
    Quanto,
    Gguf,
    Sdnq,
    Layerwise,
)


def backends() -> dict[str, Backend]:
    """Every known backend by name, the built-in ones first.

    Raises:
        BackendUnavailable: Another package's backend cannot be loaded, or takes a name in use.
    """
    known: dict[str, Backend] = {}
    for built_in in _BUILT_IN:
        instance = built_in()
        known[instance.name] = instance
    for entry_point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        instance = _load(entry_point)
        if instance.name in known:
            raise BackendUnavailable(
                f"The backend name {instance.name!r} of {entry_point.value} is taken already: "
                "uninstall the package that brings it, or ask its author to rename it."
            )
        known[instance.name] = instance
    return known


def backend(name: str) -> Backend:
    """The backend called ``name``.

    Raises:
        BackendUnavailable: There is none; names the closest known ones.
    """
    known = backends()
    if name not in known:
        closest = difflib.get_close_matches(name, known, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(closest)}?" if closest else "it is like no known one."
        raise BackendUnavailable(
            f"There is no backend {name!r}; {hint} Known backends: {', '.join(known)}."
        )
    return known[name]


def _load(entry_point: importlib.metadata.EntryPoint) -> Backend:
    try:
        factory = entry_point.load()
    except (ImportError, AttributeError) as error:
        raise BackendUnavailable(
            f"The backend {entry_point.name!r} ({entry_point.value}) cannot be loaded: {error}. "
            "Repair or uninstall the package that brings it."
        ) from error
    instance: Backend = factory()
    return instance
