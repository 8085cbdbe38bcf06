"""Text embeddings that are computed once for candidates whose text encoders are the same."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import torch

# What an argument must be made of to be told apart by its text, and what can be kept and copied.
_PLAIN = (str, int, float, torch.device, torch.dtype, type(None))
_KEPT = (torch.Tensor, *_PLAIN)
# A comparison draws a few prompts; a pipeline that rewrites them asks for others each time.
_MOST = 64


class PromptEmbeddings:
    """What ``encode_prompt`` of a pipeline returned, for the next pipeline to take.

    Pipelines without that method, and calls with tensors or images, encode as ever.
    """

    def __init__(self) -> None:
        self._encoders: Hashable = None
        self._known: dict[str, Any] = {}

    @property
    def held_bytes(self) -> int:
        """Bytes of all embeddings that are kept."""
        return sum(tensor.nbytes for tensor in _tensors(list(self._known.values())))

    def drop(self) -> None:
        """Keep nothing."""
        self._known = {}

    def lend_to(self, pipeline: Any, encoders: Hashable) -> None:
        """Let ``pipeline`` encode only what was not encoded yet.

        Args:
            pipeline: A diffusers pipeline; it is changed.
            encoders: Equal for pipelines that encode alike; what others encoded is dropped.
        """
        if encoders != self._encoders:
            self._encoders, self._known = encoders, {}
        encode = getattr(pipeline, "encode_prompt", None)
        if encode is None:
            return
        known = self._known

        def encode_once(*arguments: Any, **named: Any) -> Any:
            if not _is_made_of([*arguments, *named.values()], _PLAIN):
                return encode(*arguments, **named)
            key = repr((arguments, sorted(named.items())))
            if key in known:
                # A pipeline may write into what it was given.
                return _copy(known[key])
            encoded = encode(*arguments, **named)
            if len(known) < _MOST and _is_made_of(encoded, _KEPT):
                known[key] = _copy(encoded)
            return encoded

        pipeline.encode_prompt = encode_once


def _is_made_of(value: Any, kinds: tuple[type, ...]) -> bool:
    if type(value) in (list, tuple):
        return all(_is_made_of(part, kinds) for part in value)
    return isinstance(value, kinds)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    if type(value) in (list, tuple):
        return type(value)(map(_copy, value))
    return value
