"""Exclusion paths: exact module paths that stand for themselves and everything below them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from autoquant.errors import InputError


def covers(exclusion: str, path: str) -> bool:
    """Whether ``exclusion`` is ``path`` or one of its ancestors.

    ``blocks.1`` covers ``blocks.1.attn``, but neither ``blocks.10`` nor ``single_blocks.1``.
    """
    return path == exclusion or path.startswith(f"{exclusion}.")


def without_excluded(paths: Iterable[str], exclusions: Sequence[str]) -> tuple[str, ...]:
    """The ``paths`` that no exclusion covers, in their order."""
    roots = set(exclusions)
    return tuple(path for path in paths if roots.isdisjoint(_with_ancestors(path)))


def require_known(exclusions: Iterable[str], known: Iterable[str], kind: str = "exclusion") -> None:
    """Check that every exclusion, or whatever ``kind`` of path, is a path of the module.

    Raises:
        InputError: One is not in ``known``; names it and the closest known paths.
    """
    paths = set(known)
    for exclusion in exclusions:
        if exclusion not in paths:
            closest = difflib.get_close_matches(exclusion, sorted(paths), n=3, cutoff=0.4)
            hint = f"closest: {', '.join(closest)}" if closest else "no path is close to it"
            raise InputError(
                f"The {kind} {exclusion!r} is not a module path of this component ({hint}). "
                f"{kind.capitalize()}s are exact paths as named_modules() lists them, not patterns."
            )


def _with_ancestors(path: str) -> set[str]:
    parts = path.split(".")
    return {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
