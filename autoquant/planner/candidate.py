"""A whole configuration of a pipeline: a choice per component, and the runtime around them."""

from __future__ import annotations

from hashlib import sha256
from typing import Literal

from pydantic import BaseModel, ConfigDict

from autoquant.search_spaces.scheme import NONE, Choice

_LONGEST_NAMES = 24

ComputeDtype = Literal["bfloat16", "float16", "float32"]


class Runtime(BaseModel):
    """What holds for the whole pipeline."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    compute_dtype: ComputeDtype = "bfloat16"
    offload: Literal["none"] = "none"
    compile: Literal["none"] = "none"
    vae_tiling: Literal[False] = False
    attention: Literal["default"] = "default"


class Candidate(BaseModel):
    """A choice for each component that the search may change, and a runtime."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    components: dict[str, Choice]
    runtime: Runtime = Runtime()

    @property
    def key(self) -> str:
        """A text that is equal for equal candidates."""
        return self.model_dump_json()

    @property
    def digest(self) -> str:
        """A short name for files about this candidate."""
        return sha256(self.key.encode()).hexdigest()[:16]

    @property
    def is_reference(self) -> bool:
        """Whether nothing is quantized or fused."""
        return all(choice == Choice() for choice in self.components.values())

    @property
    def label(self) -> str:
        """One line that a person can read."""
        if self.is_reference:
            return f"{self.runtime.compute_dtype}, nothing quantized"
        choices = set(self.components.values())
        if len(choices) == 1 and len(self.components) > 1:
            return f"{choice_label(choices.pop())} everywhere"
        return " · ".join(
            f"{name} {choice_label(choice)}"
            for name, choice in self.components.items()
            if choice != Choice()
        )


def choice_label(choice: Choice) -> str:
    """One phrase for one component's choice."""
    words = [choice.scheme if choice.scheme != NONE else "unquantized"]
    if choice.exclusions:
        words.append(f"(keeps {_abbreviated(choice.exclusions)})")
    if choice.fuse_qkv:
        words.append("+ fused QKV")
    return " ".join(words)


def _abbreviated(paths: tuple[str, ...]) -> str:
    names = ", ".join(paths)
    return names if len(names) <= _LONGEST_NAMES else f"{len(paths)} sensitive modules"
