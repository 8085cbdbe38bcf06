"""Numbers from a config that someone else wrote: of the right kind, or the default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Beyond any model.
_LARGEST = 10**9
_LONGEST = 64
MOST_LAYERS = 1024
"""No model is deeper; what is counted layer by layer then ends soon, whatever a config says."""


def integer(config: Mapping[str, Any], key: str, default: int, largest: int = _LARGEST) -> int:
    """``config[key]`` if it is a count of at most ``largest``, else ``default``."""
    value = config.get(key)
    return value if isinstance(value, int) and _is_count(value) and value <= largest else default


def integers(config: Mapping[str, Any], key: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """``config[key]`` if it is a short list of sensible counts, else ``default``."""
    value = config.get(key)
    if (
        isinstance(value, list | tuple)
        and 0 < len(value) <= _LONGEST
        and all(map(_is_count, value))
    ):
        return tuple(value)
    return default


def _is_count(value: object) -> bool:
    return type(value) is int and 0 < value <= _LARGEST
