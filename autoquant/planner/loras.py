"""LoRA adapters as a plan names them, and LoRA files as a user does; nothing heavy is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, field_validator

from autoquant.errors import InputError
from autoquant.search_spaces.lora import peft_missing

_NAME = re.compile(r"[A-Za-z0-9_\-]+")
_SCALED = re.compile(r"(.+)=([+-]?\d+(?:\.\d*)?)", re.DOTALL)


class Adapter(BaseModel):
    """One LoRA adapter on one component.

    Attributes:
        name: Its name; the same on every component that it changes.
        component: The component.
        folder: Where its config and weights are; a leading ``~`` is the home directory.
        scale: What its contribution is multiplied by, 1 as it was trained.
        stored_bytes: Bytes of its weights.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    name: str
    component: str
    folder: str
    scale: float = 1.0
    stored_bytes: int = 0

    @field_validator("name", "component")
    @classmethod
    def _is_a_name(cls, text: str) -> str:
        if not _NAME.fullmatch(text):
            raise ValueError(f"{text!r} is no name of letters, digits, _ and -")
        return text

    @property
    def argument(self) -> tuple[str, str, float]:
        """What ``attach_adapters`` takes."""
        return self.name, self.folder, self.scale


def by_component(adapters: Sequence[Adapter]) -> dict[str, tuple[Adapter, ...]]:
    """The adapters of each component, in their order."""
    components = dict.fromkeys(adapter.component for adapter in adapters)
    return {name: tuple(a for a in adapters if a.component == name) for name in components}


@dataclass(frozen=True)
class NamedLora:
    """``FILE`` or ``FILE=SCALE``, as a user wrote it."""

    file: Path
    scale: float = 1.0

    @classmethod
    def parse(cls, text: str) -> NamedLora:
        """Read what stands after ``--lora``."""
        scaled = _SCALED.fullmatch(text)
        if scaled is None or Path(text).expanduser().exists():
            return cls(Path(text).expanduser())
        return cls(Path(scaled[1]).expanduser(), float(scaled[2]))

    @property
    def name(self) -> str:
        """A name for the adapter: that of the file."""
        return re.sub(r"[^A-Za-z0-9_\-]", "_", self.file.stem)


def require_loras(named: Sequence[str]) -> None:
    """Check what can be checked of files before anything heavy is loaded.

    Raises:
        InputError: A file is not there or is no safetensors file, two have one name, or peft is
            not installed.
    """
    loras = [NamedLora.parse(text) for text in named]
    for lora in loras:
        if not lora.file.is_file():
            raise InputError(f"There is no LoRA file at {lora.file}.")
        if lora.file.suffix != ".safetensors":
            raise InputError(
                f"{lora.file} is no .safetensors file. Pickles can run code when they are opened, "
                "so they are not."
            )
    names = [lora.name for lora in loras]
    if len(set(names)) < len(names):
        raise InputError(f"Two LoRA files have one name: {', '.join(sorted(names))}.")
    if loras:
        require_peft()


def require_peft() -> None:
    """Check that adapters can be loaded at all.

    Raises:
        InputError: peft is not installed, or too old.
    """
    missing = peft_missing()
    if missing is not None:
        raise InputError(f"LoRA adapters need peft: {missing}.")
