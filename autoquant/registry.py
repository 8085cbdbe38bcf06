"""Things found by name: those built in, and those that other packages bring by entry point."""

from __future__ import annotations

import difflib
import importlib.metadata
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from autoquant.errors import InputError


class Named(Protocol):
    """What can be registered."""

    @property
    def name(self) -> str:
        """The word that users write."""


Entry = TypeVar("Entry", bound=Named)


@dataclass(frozen=True)
class Registry(Generic[Entry]):
    """One kind of thing that users name.

    Attributes:
        kind: What it is called in errors, like ``backend``.
        entry_points: Group of other packages' entries; each is a class without arguments.
        built_in: The classes that ship with autoquant.
        error: What is raised.
    """

    kind: str
    entry_points: str
    built_in: tuple[type[Entry], ...]
    error: type[InputError] = InputError

    def all(self) -> dict[str, Entry]:
        """Every known entry by name, the built-in ones first.

        Raises:
            InputError: Another package's entry cannot be loaded, or takes a name in use.
        """
        known: dict[str, Entry] = {}
        for built_in in self.built_in:
            instance = built_in()
            known[instance.name] = instance
        for entry_point in importlib.metadata.entry_points(group=self.entry_points):
            instance = self._load(entry_point)
            if instance.name in known:
                raise self.error(
                    f"The {self.kind} name {instance.name!r} of {entry_point.value} is taken "
                    "already: uninstall the package that brings it, or ask its author to rename it."
                )
            known[instance.name] = instance
        return known

    def get(self, name: str) -> Entry:
        """The entry called ``name``.

        Raises:
            InputError: There is none; names the closest known ones.
        """
        for built_in in self.built_in:  # other packages' entries are looked for on the whole path
            instance = built_in()
            if instance.name == name:
                return instance
        known = self.all()
        if name not in known:
            closest = difflib.get_close_matches(name.lower(), known, n=2, cutoff=0.4)
            hint = (
                f"did you mean {' or '.join(closest)}?" if closest else "it is like no known one."
            )
            raise self.error(
                f"There is no {self.kind} {name!r}; {hint} Known {self.kind}s: {', '.join(known)}."
            )
        return known[name]

    def _load(self, entry_point: importlib.metadata.EntryPoint) -> Entry:
        try:
            factory = entry_point.load()
        except (ImportError, AttributeError) as error:
            raise self.error(
                f"The {self.kind} {entry_point.name!r} ({entry_point.value}) cannot be loaded: "
                f"{error}. Repair or uninstall the package that brings it."
            ) from error
        instance: Entry = factory()
        return instance
