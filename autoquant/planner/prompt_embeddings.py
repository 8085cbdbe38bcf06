"""Text embeddings that are computed once for candidates whose text encoders are the same."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch

# What an argument must be made of to be told apart by its text.
_PLAIN = (str, int, float, torch.device, torch.dtype, type(None))


class PromptEmbeddings:
    """What ``encode_prompt`` of a pipeline returned, for the next pipeline to take.

    Pipelines without that method, and calls with tensors or images, encode as ever.
    """

    def __init__(self) -> None:
        self._encoders: Hashable = None
        self._known: dict[str, Any] = {}

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
            if not _is_plain([*arguments, *named.values()]):
                return encode(*arguments, **named)
            key = repr((arguments, sorted(named.items())))
            if key not in known:
                known[key] = encode(*arguments, **named)
            # A pipeline may write into what it was given.
            return _copy(known[key])

        pipeline.encode_prompt = encode_once


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    if type(value) in (list, tuple):
        return type(value)(map(_copy, value))
    return value
