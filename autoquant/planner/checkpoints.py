"""Quantized folders that a user or a plan names: headers first, and offered where they fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoquant.errors import InputError
from autoquant.planner.gguf_files import require_gguf_files, with_scheme
from autoquant.planner.source import without_home
from autoquant.search_spaces.backends import backend
from autoquant.search_spaces.compatibility import conflicts
from autoquant.search_spaces.quantized_folder import read_quantized_folder
from autoquant.search_spaces.scheme import CHECKPOINT, Scheme
from autoquant.search_spaces.space import SearchSpace

if TYPE_CHECKING:
    from torch import nn

_COMPONENT = re.compile(r"([A-Za-z_]\w*)=(.+)", re.DOTALL)


@dataclass(frozen=True)
class NamedCheckpoint:
    """``FOLDER``, or ``COMPONENT=FOLDER``, as a user wrote it.

    Attributes:
        folder: The folder.
        component: The one that it is for; None is every one that it fits.
    """

    folder: Path
    component: str | None = None

    @classmethod
    def parse(cls, text: str) -> NamedCheckpoint:
        """Read what stands after ``--checkpoint``."""
        named = _COMPONENT.fullmatch(text)
        if named is None or Path(text).expanduser().exists():
            return cls(Path(text).expanduser().absolute())
        return cls(Path(named[2]).expanduser().absolute(), named[1])

    @property
    def scheme(self) -> str:
        """The scheme that takes weights from the folder."""
        return f"{CHECKPOINT}:{without_home(self.folder)}"


def require_stored_weights(schemes: Iterable[str]) -> None:
    """Check the headers of each file and folder among ``schemes``; no weight is read.

    Raises:
        InputError: One is not there, is damaged, or holds nothing quantized.
    """
    named = list(schemes)
    require_gguf_files(named)
    for scheme in map(Scheme.parse, named):
        if scheme.backend == CHECKPOINT:
            read_quantized_folder(scheme.precision)


def with_checkpoints(
    space: SearchSpace,
    named: Iterable[str],
    modules: Mapping[str, nn.Module],
    device_type: str,
    **conditions: Any,
) -> SearchSpace:
    """``space`` with each of the folders open to the components whose weights it holds.

    Args:
        space: What is open without them.
        named: ``FOLDER`` or ``COMPONENT=FOLDER``.
        modules: The pipeline's modules; they may be on the meta device.
        device_type: torch's device type.
        conditions: Further arguments of ``compatibility.conflicts``.

    Raises:
        InputError: A folder cannot be used here, or holds the weights of no component.
    """
    components = dict(space.components)
    for checkpoint in map(NamedCheckpoint.parse, named):
        asked = (
            [checkpoint.component]
            if checkpoint.component
            else _of_its_class(checkpoint, {name: modules[name] for name in components})
        )
        reasons = []
        fitting = []
        for name in asked:
            if name not in components:
                raise InputError(
                    f"--checkpoint {name}=…: the pipeline has no component {name!r} to decide on; "
                    f"it has {', '.join(components)}."
                )
            reason = _refusal(checkpoint, modules[name], device_type, **conditions)
            if reason is None:
                fitting.append(name)
            else:
                reasons.append(reason)
        if not fitting:
            raise InputError("; ".join(dict.fromkeys(reasons)))
        for name in fitting:
            if components[name].exclusions[0]:
                raise InputError(
                    f"{name} keeps {components[name].exclusions[0][0]} in every choice, but what "
                    f"{checkpoint.folder} has quantized stays so: leave one of them out."
                )
            components[name] = with_scheme(components[name], checkpoint.scheme)
    return space.model_copy(update={"components": components})


def _of_its_class(checkpoint: NamedCheckpoint, modules: Mapping[str, nn.Module]) -> list[str]:
    """The components that the folder may be for; all of them where it is for none."""
    classes = read_quantized_folder(checkpoint.folder).class_names
    named = [name for name, module in modules.items() if type(module).__name__ in classes]
    return named or list(modules)


def _refusal(
    checkpoint: NamedCheckpoint, module: nn.Module, device_type: str, **conditions: Any
) -> str | None:
    """Why the folder cannot be used for the module; None if it can."""
    folder = read_quantized_folder(checkpoint.folder)
    try:
        folder.quantized_layers(module)
    except InputError as error:
        return str(error)
    full_name = f"{type(module).__module__.partition('.')[0]}.{type(module).__name__}"
    against = conflicts(checkpoint.scheme, device_type, component=full_name, **conditions)
    if against:
        return (
            f"{checkpoint.folder} ({folder.kind}) cannot be used here: {against[0].reason} "
            f"({against[0].source})."
        )
    reason = backend(CHECKPOINT).unavailable(str(checkpoint.folder), device_type)
    return None if reason is None else f"{checkpoint.folder} ({folder.kind}): {reason}"
