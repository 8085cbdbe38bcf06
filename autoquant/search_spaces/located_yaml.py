"""YAML with the line of every entry, so that errors can say where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

Place = tuple[str | int, ...]
"""Keys and positions from the top of the document, as pydantic's error locations have them."""


@dataclass(frozen=True)
class Located:
    """A document's data, and the line on which each entry begins."""

    data: Any
    lines: dict[Place, int]

    def line(self, place: Place) -> int:
        """The line of ``place``, or of the closest entry around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


class DuplicateKey(ValueError):
    """A mapping has the same key twice.

    Attributes:
        line: Where the second one is.
    """

    def __init__(self, key: str, line: int) -> None:
        super().__init__(f"{key!r} is there twice")
        self.line = line


def load(text: str) -> Located:
    """Read one document of plain YAML.

    Raises:
        yaml.YAMLError: The text is no YAML, or asks for Python objects.
        DuplicateKey: A mapping has a key twice.
    """
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    lines: dict[Place, int] = {}
    if node is not None:
        _locate(node, (), lines)
    return Located(yaml.safe_load(text), lines)


def _locate(node: yaml.Node, place: Place, lines: dict[Place, int]) -> None:
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, key.value)
            if inner in lines:
                raise DuplicateKey(key.value, key.start_mark.line + 1)
            lines[inner] = key.start_mark.line + 1
            _locate(value, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            _locate(value, (*place, position), lines)
