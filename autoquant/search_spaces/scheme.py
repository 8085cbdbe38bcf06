"""The choice for one component: a scheme, the layers left out of it, fused projections or not."""

from __future__ import annotations

import re
from pathlib import PurePath

from pydantic import BaseModel, ConfigDict, field_validator

from autoquant.errors import InputError

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


class Choice(BaseModel):
    """What is done to one component.

    Attributes:
        scheme: ``none`` or ``backend:precision``.
        exclusions: Exact paths of the modules that stay in the compute dtype, sorted. A path stands
            for itself and for everything below it.
        fuse_qkv: Whether query, key and value projections are fused before quantizing.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    scheme: str = NONE
    exclusions: tuple[str, ...] = ()
    fuse_qkv: bool = False

    @field_validator("scheme")
    @classmethod
    def _scheme_is_well_formed(cls, text: str) -> str:
        return str(Scheme.parse(text))

    @field_validator("exclusions")
    @classmethod
    def _exclusions_are_sorted_and_distinct(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(paths)))
