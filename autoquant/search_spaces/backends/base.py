"""What a quantization backend is: five members, and the recipe that it hands out."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from autoquant.errors import BackendUnavailable

if TYPE_CHECKING:
    from torch import nn

Argument = str | int | float | bool


@dataclass(frozen=True)
class Recipe:
    """A function that quantizes exactly the given layers in place, and its arguments.

    ``function(module, layers, **arguments)`` works on a module that is loaded in bfloat16 or
    float16, on any device, and releases the original weights layer by layer. Its source is written
    into loader scripts as it stands, so it imports what it needs in its own body and refers to
    nothing of autoquant.

    Attributes:
        function: The function to call and to hand over.
        arguments: Keyword arguments, JSON scalars only.
        brings_weights: The function brings the weights too: it is given a model without any, on the
            meta device, and projections cannot be fused before it.
    """

    function: Callable[..., None]
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    brings_weights: bool = False


class Backend(Protocol):
    """A library that quantizes the linear layers of a loaded module.

    Importing a backend's module and all members but the recipe's function must stay light: they run
    in processes that never import torch.
    """

    @property
    def name(self) -> str:
        """The word before the colon of a scheme."""

    @property
    def precisions(self) -> Mapping[str, float]:
        """Each precision with its nominal payload in bits per weight, scales not counted."""

    def unavailable(self, precision: str, device_type: str) -> str | None:
        """Say in one line why this cannot be used here and what would fix it; None if it can."""

    def quantizable_layers(self, module: nn.Module, precision: str) -> tuple[str, ...]:
        """Exact paths of the layers that can be quantized without damage, in module order."""

    def recipe(self, precision: str) -> Recipe:
        """The function and arguments that quantize to ``precision``."""


@runtime_checkable
class MixedPrecisions(Protocol):
    """What a backend has beside the rest if layers of one component may differ in precision.

    Their recipes are then called one after the other, each for its own layers.
    """

    def stored_precision(self, layer: nn.Module) -> str | None:
        """The precision in which ``layer`` is really stored; None if it is not quantized by this.

        It is read from the layer alone, and distinguishes every two of ``precisions``.
        """


class NotInstalled(str):
    """A reason that an installation removes; it ends with the command that does."""

    __slots__ = ()


def not_installed(distribution: str, minimum: str, extra: str) -> NotInstalled | None:
    """Say why ``distribution`` cannot be used, without importing it; None if it can.

    Args:
        distribution: Name on the package index.
        minimum: Oldest version that works, like ``0.49``.
        extra: The extra of diffusers-autoquant that installs it.
    """
    fix = f'pip install "diffusers-autoquant[{extra}]"'
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return NotInstalled(f"{distribution} is not installed: {fix}")
    if _release(version) < _release(minimum):
        return NotInstalled(f"{distribution} {version} is older than {minimum}: {fix}")
    return None


def require_precision(backend: str, precisions: Mapping[str, float], precision: str) -> None:
    """Check that the backend has this precision.

    Raises:
        BackendUnavailable: It has not; names the ones it has.
    """
    if precision not in precisions:
        raise BackendUnavailable(
            f"The backend {backend!r} has no precision {precision!r}. Use one of: "
            f"{', '.join(precisions)}."
        )


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
