"""Which schemes can run on a device: what is installed, what it has, what the table says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autoquant.errors import BackendUnavailable
from autoquant.search_spaces import backends as registry
from autoquant.search_spaces.backends import Backend
from autoquant.search_spaces.backends.base import require_precision
from autoquant.search_spaces.compatibility import conflicts
from autoquant.search_spaces.scheme import Scheme
from autoquant.search_spaces.sensitivity import generic


def usable_schemes(
    device_type: str,
    asked: Sequence[str] | None,
    *,
    capability: tuple[int, int] | None = None,
    compute_dtype: str = "bfloat16",
) -> tuple[dict[str, Backend], dict[str, str]]:
    """The usable schemes with their backends, and the unusable ones with the reasons.

    Raises:
        BackendUnavailable: A backend or scheme asked for is unknown or cannot run here.
    """
    usable: dict[str, Backend] = {}
    unusable: dict[str, str] = {}
    for word in registry.backends() if asked is None else asked:
        owner, precisions = _precisions(word)
        reasons = {
            precision: owner.unavailable(precision, device_type)
            or forbidden(
                f"{owner.name}:{precision}",
                device_type,
                capability=capability,
                compute_dtype=compute_dtype,
            )
            for precision in precisions
        }
        if asked is not None and all(reasons.values()):
            raise BackendUnavailable(
                f"{word!r} was asked for but cannot be used here: {next(iter(reasons.values()))}."
            )
        for precision, reason in reasons.items():
            if reason is None:
                usable[f"{owner.name}:{precision}"] = owner
            else:
                unusable[f"{owner.name}:{precision}"] = reason
    return usable, unusable


def forbidden(scheme: str, device_type: str, **conditions: Any) -> str | None:
    """The compatibility table's first reason against ``scheme``; None if there is none.

    Args:
        scheme: Like ``torchao:int4wo``.
        device_type: torch's device type.
        conditions: Further arguments of ``compatibility.conflicts``.
    """
    return next((found.reason for found in conflicts(scheme, device_type, **conditions)), None)


def _precisions(word: str) -> tuple[Backend, list[str]]:
    """The backend and the precisions that ``torchao`` or ``torchao:int8wo`` asks for."""
    if ":" in word:
        scheme = Scheme.parse(word)
        owner = registry.backend(scheme.backend)
        owner.recipe(scheme.precision)  # a backend knows best why it lacks a precision
        if not scheme.from_file:
            require_precision(owner.name, owner.precisions, scheme.precision)
        return owner, [scheme.precision]
    owner = registry.backend(word)
    off = generic().off_by_default
    return owner, [name for name in owner.precisions if f"{owner.name}:{name}" not in off]
