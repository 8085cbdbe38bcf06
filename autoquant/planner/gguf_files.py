"""GGUF files that a user or a plan names: read header first, and offered where they fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoquant.errors import InputError
from autoquant.planner.footprint.gguf_header import read_gguf_header
from autoquant.planner.footprint.repository import LocalRepository
from autoquant.planner.source import without_home
from autoquant.search_spaces.backends import backend
from autoquant.search_spaces.backends.gguf_file import GgufFile
from autoquant.search_spaces.scheme import GGUF_FILE, Scheme
from autoquant.search_spaces.space import ComponentSpace, SearchSpace

if TYPE_CHECKING:
    from torch import nn

_UNQUANTIZED = {"F32", "F16", "BF16"}


def gguf_scheme(path: str | Path) -> str:
    """The scheme that takes weights from the file at ``path``."""
    return f"{GGUF_FILE}:{without_home(Path(path).expanduser().absolute())}"


def require_gguf_files(schemes: Iterable[str]) -> None:
    """Check the header of each file among ``schemes``; the weights are not read.

    Raises:
        InputError: A file is not there, is damaged, or holds nothing quantized.
    """
    for text in schemes:
        scheme = Scheme.parse(text)
        if scheme.backend != GGUF_FILE:
            continue
        path = Path(scheme.precision).expanduser()
        if not path.is_file():
            raise InputError(f"There is no GGUF file at {scheme.precision}.")
        repository = LocalRepository(path.parent, path)
        size = path.stat().st_size
        tensors = read_gguf_header(
            scheme.precision,
            size,
            lambda offset, length, files=repository, name=path.name: files.read(  # type: ignore[misc]
                name, offset, length
            ),
        )
        if all(tensor.dtype in _UNQUANTIZED for tensor in tensors.values()):
            raise InputError(f"{scheme.precision} holds no quantized weights: plan without it.")


def with_gguf_files(
    space: SearchSpace,
    files: Iterable[str],
    modules: Mapping[str, nn.Module],
    device_type: str,
) -> SearchSpace:
    """``space`` with each of the files open to the components whose weights it holds.

    Args:
        space: What is open without them.
        files: Paths.
        modules: The pipeline's modules; they may be on the meta device.
        device_type: torch's device type.

    Raises:
        InputError: A file cannot be used here, or holds the weights of no component.
    """
    components = dict(space.components)
    for scheme in map(gguf_scheme, files):
        precision = Scheme.parse(scheme).precision
        reason = backend(GGUF_FILE).unavailable(precision, device_type)
        reasons = [] if reason is None else [reason]
        fitting = []
        for name in components if reason is None else ():
            try:
                if GgufFile().quantizable_layers(modules[name], precision):
                    fitting.append(name)
            except InputError as error:
                reasons.append(str(error))
        if not fitting:
            raise InputError(
                "; ".join(reasons)
                or f"{precision}: no component of this pipeline can be loaded from a GGUF file."
            )
        for name in fitting:
            components[name] = with_scheme(components[name], scheme)
    return space.model_copy(update={"components": components})


def with_scheme(component: ComponentSpace, scheme: str) -> ComponentSpace:
    """``component`` with a further scheme that tries no exclusions."""
    update: dict[str, Any] = {"schemes": tuple(dict.fromkeys((*component.schemes, scheme)))}
    if len(component.exclusions) > 1:
        # What a file has quantized gains nothing by being unpacked.
        only_first = (0,) * len(component.exclusions)
        update["same_as"] = {**component.same_as, scheme: only_first}
    return component.model_copy(update=update)
