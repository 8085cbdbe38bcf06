"""The next wider precision that layers of a component may have beside the others."""

from __future__ import annotations

from collections.abc import Iterable

from autoquant.search_spaces.backends import MixedPrecisions, backend
from autoquant.search_spaces.scheme import Scheme


def next_wider(scheme: str, schemes: Iterable[str]) -> str | None:
    """Of ``schemes``, the one of the same backend with the fewest bits above those of ``scheme``.

    Of several with as many bits it is the first. None if there is none, or if the backend cannot
    mix precisions.

    Raises:
        BackendUnavailable: The backend of ``scheme`` is unknown.
    """
    own = Scheme.parse(scheme)
    owner = backend(own.backend)
    if not isinstance(owner, MixedPrecisions):
        return None
    bits = {
        text: owner.precisions[other.precision]
        for text, other in ((text, Scheme.parse(text)) for text in schemes)
        if other.backend == own.backend
    }
    wider = [text for text in bits if bits[text] > owner.precisions[own.precision]]
    return min(wider, key=lambda text: bits[text], default=None)
