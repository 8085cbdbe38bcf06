"""A user's own search space: a YAML file that narrows what is tried, or names more.

    components:
      transformer:
        schemes: [none, "torchao:int8wo", "bitsandbytes:nf4"]
        exclusions:
          - []
          - ["proj_out", "transformer_blocks\\.\\d+\\.norm1\\.linear"]
        fuse_qkv: [false]
        mixed:
          - scheme: "bitsandbytes:nf4"
            overrides:
              "transformer_blocks\\.0": "bitsandbytes:int8"
              ".*\\.ff": "bitsandbytes:int8"
            exclusions: ["proj_out"]
    runtime:
      offload: [none, model]
      compile: [none, regional]

Components and fields that are left out stay as they are without the file; ``none`` and unfused are
always open, for they are the reference. Exclusions are sets of regular expressions, each matching
whole module paths. What is mixed gives the layers that a pattern matches, with all below them,
another precision of the scheme's backend; each entry is one more choice beside the others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from autoquant.errors import InputError, SpaceFileError
from autoquant.search_spaces import located_yaml
from autoquant.search_spaces.backends import MixedPrecisions, backend
from autoquant.search_spaces.levers import AskedLevers
from autoquant.search_spaces.located_yaml import Located, Place
from autoquant.search_spaces.scheme import Scheme
from autoquant.search_spaces.sensitivity import Regex


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OwnMix(_Data):
    """A choice whose layers differ in precision; patterns match whole module paths."""

    scheme: str
    overrides: dict[Regex, str] = Field(min_length=1)
    exclusions: tuple[Regex, ...] = ()


class OwnComponent(_Data):
    """What a user opens to one component; None leaves it as it is without the file."""

    schemes: tuple[str, ...] | None = Field(default=None, min_length=1)
    exclusions: tuple[tuple[Regex, ...], ...] | None = Field(default=None, min_length=1)
    fuse_qkv: tuple[bool, ...] | None = Field(default=None, min_length=1, max_length=2)
    mixed: tuple[OwnMix, ...] = ()

    @property
    def named_schemes(self) -> dict[Place, str]:
        """Every scheme that is named, by where that is."""
        named: dict[Place, str] = {}
        for position, scheme in enumerate(self.schemes or ()):
            named["schemes", position] = scheme
        for number, mix in enumerate(self.mixed):
            named["mixed", number, "scheme"] = mix.scheme
            for pattern, scheme in mix.overrides.items():
                named["mixed", number, "overrides", pattern] = scheme
        return named


class OwnSpace(_Data):
    """The contents of a space file."""

    components: dict[str, OwnComponent] = Field(default_factory=dict)
    runtime: AskedLevers = AskedLevers()

    @property
    def schemes(self) -> tuple[str, ...]:
        """Every scheme that is named, once."""
        owned = (own.named_schemes.values() for own in self.components.values())
        return tuple(dict.fromkeys(chain.from_iterable(owned)))

    @model_validator(mode="after")
    def _says_something(self) -> OwnSpace:
        if not self.components and self.runtime == AskedLevers():
            raise ValueError("it says nothing: name a component, or a lever under runtime")
        return self


@dataclass(frozen=True)
class SpaceFile:
    """A space file that was read, and where its entries are."""

    origin: str
    contents: OwnSpace
    located: Located

    def fault(self, place: Place, message: str) -> str:
        """One line for one fault."""
        return f"{self.origin}:{self.located.line(place)}: {' '.join(message.split())}"


def read_space_file(path: Path) -> SpaceFile:
    """Read a space file and check all that can be checked without a model or a device.

    Raises:
        SpaceFileError: The file cannot be read, is no YAML, or has unknown keys or wrong values.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceFileError(f"Cannot read the space file {path}: {error}.") from error
    return parse_space_file(text, str(path))


def parse_space_file(text: str, origin: str) -> SpaceFile:
    """``read_space_file`` on the text of a file called ``origin``."""
    try:
        located = located_yaml.load(text)
        file = SpaceFile(origin, OwnSpace.model_validate(located.data), located)
    except located_yaml.DuplicateKey as error:
        raise SpaceFileError(f"{origin}:{error.line}: {error}.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise SpaceFileError(f"{origin}:{line}: this is no YAML: {problem}.") from error
    except ValidationError as error:
        entries = error.errors()
        # pydantic also reports the list that a wrong entry was dropped from.
        inner = {entry["loc"][:length] for entry in entries for length in range(len(entry["loc"]))}
        faults = [_told(origin, located, it) for it in entries if it["loc"] not in inner]
        raise SpaceFileError("\n".join(faults)) from error
    refuse(_scheme_faults(file))
    return file


def refuse(faults: list[str]) -> None:
    """Raise an error of one line for each fault, if there is any.

    Raises:
        SpaceFileError: There is a fault.
    """
    if faults:
        raise SpaceFileError("\n".join(faults))


def _told(origin: str, located: Located, entry: Any) -> str:
    place: Place = tuple(entry["loc"])
    where = ".".join(str(part) for part in place) or "the file"
    if entry["type"] == "extra_forbidden":
        known: type[BaseModel] = OwnSpace
        if len(place) > 1:
            known = AskedLevers if place[0] == "runtime" else OwnComponent
            known = OwnMix if "mixed" in place[:-1] else known
        message = f"unknown key {place[-1]!r}; known: {', '.join(known.model_fields)}."
    else:
        message = f"{where}: {entry['msg']}."
    return f"{origin}:{located.line(place)}: {message}"


def _scheme_faults(file: SpaceFile) -> list[str]:
    """Schemes that no machine has."""
    faults = []
    for name, own in file.contents.components.items():
        unknown: set[Place] = set()
        for place, text in own.named_schemes.items():
            try:
                scheme = Scheme.parse(text)
                if scheme.quantizes:
                    backend(scheme.backend).recipe(scheme.precision)
            except InputError as error:
                unknown.add(place)
                faults.append(file.fault(("components", name, *place), str(error)))
        for place, message in _mixing_faults(own, unknown):
            faults.append(file.fault(("components", name, *place), message))
    return faults


def _mixing_faults(own: OwnComponent, unknown: Collection[Place]) -> Iterator[tuple[Place, str]]:
    """Overrides that no backend takes, whatever the model; ``unknown`` schemes are told already."""
    for number, mix in enumerate(own.mixed):
        place: Place = ("mixed", number, "scheme")
        if place in unknown:
            continue
        base = Scheme.parse(mix.scheme)
        if not base.quantizes:
            yield place, "none has no precision to override: say what the other layers get."
            continue
        if own.schemes is not None and mix.scheme not in own.schemes:
            yield place, f"{base} is not among the component's schemes: add it there."
        if not isinstance(backend(base.backend), MixedPrecisions):
            yield place, f"the backend {base.backend!r} quantizes all layers of a component alike."
            continue
        for pattern, text in mix.overrides.items():
            place = ("mixed", number, "overrides", pattern)
            if place in unknown:
                continue
            if Scheme.parse(text).backend != base.backend:
                yield place, f"{text} is of another backend than {base}, which the others get."
            elif text == mix.scheme:
                yield place, f"{text} is what the other layers get too."
