"""The choice for one component: its scheme or schemes, the layers left out, fused or not."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import combinations
from pathlib import PurePath
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from autoquant.errors import InputError
from autoquant.search_spaces.exclusions import covers, without_excluded

NONE = "none"
GGUF_FILE = "gguf-file"
CHECKPOINT = "checkpoint"

# Q4_K_S, IQ4_XS … in the name of a file; elsewhere the first number.
_BITS_OF_FILE = re.compile(r"(?<![A-Za-z])I?Q(\d)")
_BITS = re.compile(r"(\d+)")


class Scheme(BaseModel):
    """A backend and a precision, written ``backend:precision``; ``none`` changes nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: str
    precision: str = ""

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """Read ``torchao:int8wo`` or ``none``.

        Raises:
            InputError: ``text`` is neither ``none`` nor ``backend:precision``.
        """
        if text == NONE:
            return cls(backend=NONE)
        backend, separator, precision = text.partition(":")
        if not (separator and backend and precision):
            raise InputError(
                f"A scheme must be 'none' or 'backend:precision', like 'torchao:int8wo', "
                f"got {text!r}."
            )
        return cls(backend=backend, precision=precision)

    @property
    def quantizes(self) -> bool:
        """Whether this scheme changes the component at all."""
        return self.backend != NONE

    @property
    def from_file(self) -> bool:
        """Whether the weights come quantized from a file or folder, whose path is the precision."""
        return self.backend in {GGUF_FILE, CHECKPOINT}

    @property
    def excludes(self) -> bool:
        """Whether layers can be left out; what a checkpoint has quantized stays so."""
        return self.backend != CHECKPOINT

    @property
    def width(self) -> int | None:
        """Bits of a weight as the name says, scales not counted; None if it does not say."""
        if self.backend == CHECKPOINT:
            return None
        found = (
            _BITS_OF_FILE.search(PurePath(self.precision).name)
            if self.from_file
            else _BITS.search(self.precision)
        )
        return int(found[1]) if found else None

    @property
    def short(self) -> str:
        """The scheme, with the name of a file instead of its path, and of a folder its last two."""
        if not self.from_file:
            return str(self)
        parts = PurePath(self.precision).parts[-2 if self.backend == CHECKPOINT else -1 :]
        return f"{self.backend}:{'/'.join(parts)}"

    def __str__(self) -> str:
        return f"{self.backend}:{self.precision}" if self.quantizes else NONE


class Override(BaseModel):
    """Some layers of a component that get another scheme than the rest of it.

    Attributes:
        scheme: Another precision of the same backend.
        layers: Exact module paths, sorted; a path stands for itself and for everything below it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheme: str
    layers: tuple[str, ...] = Field(min_length=1)

    @field_validator("scheme")
    @classmethod
    def _scheme_quantizes(cls, text: str) -> str:
        scheme = Scheme.parse(text)
        if not scheme.quantizes:
            raise ValueError("layers that stay unquantized are exclusions, not overrides")
        return str(scheme)

    @field_validator("layers")
    @classmethod
    def _layers_are_sorted_and_distinct(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(paths)))

    def covers(self, path: str) -> bool:
        """Whether the layer at ``path`` is among these."""
        return not without_excluded([path], self.layers)


class Choice(BaseModel):
    """What is done to one component.

    Attributes:
        scheme: ``none`` or ``backend:precision``.
        exclusions: Exact paths of the modules that stay in the compute dtype, sorted. A path stands
            for itself and for everything below it.
        fuse_qkv: Whether query, key and value projections are fused before quantizing.
        overrides: Layers with another scheme of the same backend, one entry a scheme. No layer is
            in two of them; one that is excluded as well is left alone.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    scheme: str = NONE
    exclusions: tuple[str, ...] = ()
    fuse_qkv: bool = False
    overrides: tuple[Override, ...] = ()

    @property
    def schemes(self) -> tuple[str, ...]:
        """Every scheme that it uses, that of most layers first."""
        return (self.scheme, *(override.scheme for override in self.overrides))

    def scheme_at(self, path: str) -> str:
        """The scheme for the layer at ``path``, which is not excluded."""
        return next((it.scheme for it in self.overrides if it.covers(path)), self.scheme)

    @field_validator("scheme")
    @classmethod
    def _scheme_is_well_formed(cls, text: str) -> str:
        return str(Scheme.parse(text))

    @field_validator("exclusions")
    @classmethod
    def _exclusions_are_sorted_and_distinct(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(paths)))

    @field_validator("overrides")
    @classmethod
    def _an_override_a_scheme(cls, overrides: tuple[Override, ...]) -> tuple[Override, ...]:
        layers: dict[str, tuple[str, ...]] = {}
        for override in overrides:
            layers[override.scheme] = (*layers.get(override.scheme, ()), *override.layers)
        return tuple(Override(scheme=scheme, layers=layers[scheme]) for scheme in sorted(layers))

    @model_validator(mode="after")
    def _overrides_fit_the_scheme(self) -> Choice:
        backend = Scheme.parse(self.scheme).backend
        for override in self.overrides:
            if Scheme.parse(override.scheme).backend != backend:
                raise ValueError(
                    f"{override.scheme} for some layers is of another backend than {self.scheme} "
                    "for the others"
                )
            if override.scheme == self.scheme:
                raise ValueError(f"{override.scheme} is the scheme of the other layers too")
        twice = _in_two(self.overrides)
        if twice is not None:
            raise ValueError(f"{twice} is given two schemes")
        return self

    @model_serializer(mode="wrap")
    def _without_what_earlier_versions_do_not_know(
        self, handler: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        # A candidate is known by its JSON, in studies and caches that are older than overrides.
        entries: dict[str, Any] = handler(self)
        if not self.overrides:
            entries.pop("overrides", None)
        return entries


def _in_two(overrides: Iterable[Override]) -> str | None:
    """A path that two of the overrides cover."""
    for one, other in combinations(overrides, 2):
        for ours in one.layers:
            for theirs in other.layers:
                if covers(ours, theirs) or covers(theirs, ours):
                    return max(ours, theirs, key=len)
    return None
