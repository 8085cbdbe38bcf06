"""The backends that can be named in a scheme, built in or brought by another package."""

from __future__ import annotations

from autoquant.errors import BackendUnavailable
from autoquant.registry import Registry
from autoquant.search_spaces.backends.auto_round import AutoRound
from autoquant.search_spaces.backends.base import Backend, MixedPrecisions, Recipe
from autoquant.search_spaces.backends.bitsandbytes import Bitsandbytes
from autoquant.search_spaces.backends.checkpoint import Checkpoint
from autoquant.search_spaces.backends.gguf import Gguf
from autoquant.search_spaces.backends.gguf_file import GgufFile
from autoquant.search_spaces.backends.layerwise import Layerwise
from autoquant.search_spaces.backends.modelopt import Modelopt
from autoquant.search_spaces.backends.quanto import Quanto
from autoquant.search_spaces.backends.sdnq import Sdnq
from autoquant.search_spaces.backends.torchao import Torchao

__all__ = ["ENTRY_POINTS", "Backend", "MixedPrecisions", "Recipe", "backend", "backends"]

ENTRY_POINTS = "autoquant.backends"
"""Entry point group of other packages' backends; each entry is a class without arguments."""

_REGISTRY: Registry[Backend] = Registry(
    kind="backend",
    entry_points=ENTRY_POINTS,
    built_in=(
        *(Bitsandbytes, Torchao, Quanto, Gguf, GgufFile, Checkpoint),
        *(AutoRound, Sdnq, Modelopt, Layerwise),
    ),
    error=BackendUnavailable,
)


def backends() -> dict[str, Backend]:
    """Every known backend by name, the built-in ones first.

    Raises:
        BackendUnavailable: Another package's backend cannot be loaded, or takes a name in use.
    """
    return _REGISTRY.all()


def backend(name: str) -> Backend:
    """The backend called ``name``.

    Raises:
        BackendUnavailable: There is none; names the closest known ones.
    """
    return _REGISTRY.get(name)
