"""A whole configuration of a pipeline: a choice per component, and the runtime around them."""

from __future__ import annotations

from hashlib import sha256

from pydantic import BaseModel, ConfigDict, Field

from autoquant.search_spaces.levers import Attention, Compile, ComputeDtype, Offload
from autoquant.search_spaces.scheme import NONE, Choice, Scheme

_LONGEST_NAMES = 24


class Runtime(BaseModel):
    """What holds for the whole pipeline: a value of each lever."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    compute_dtype: ComputeDtype = "bfloat16"
    offload: Offload = "none"
    compile: Compile = "none"
    vae_tiling: bool = False
    vae_slicing: bool = False
    attention: Attention = Field(default="default", pattern=r"^[a-z0-9_]+$")

    @property
    def label(self) -> str:
        """One phrase for the levers that are pulled; empty if none is."""
        words = []
        if self.offload != "none":
            words.append(f"{self.offload.replace('_', ' ')} offload")
        if self.compile != "none":
            words.append(f"{self.compile} compile")
        words += ["VAE tiling"] * self.vae_tiling + ["VAE slicing"] * self.vae_slicing
        if self.attention != "default":
            words.append(f"{self.attention} attention")
        return ", ".join(words)


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
    def uncompiled(self) -> Candidate:
        """The same without compiling."""
        runtime = self.runtime.model_copy(update={"compile": "none"})
        return self.model_copy(update={"runtime": runtime})

    @property
    def is_reference(self) -> bool:
        """Whether nothing is quantized or fused."""
        return all(choice == Choice() for choice in self.components.values())

    @property
    def label(self) -> str:
        """One line that a person can read."""
        dtype = self.runtime.compute_dtype
        other_dtype = dtype if dtype != "bfloat16" and not self.is_reference else ""
        return " · ".join(filter(None, (self._choices_label, other_dtype, self.runtime.label)))

    @property
    def _choices_label(self) -> str:
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
    words = [Scheme.parse(choice.scheme).short if choice.scheme != NONE else "unquantized"]
    for override in choice.overrides:
        precision = Scheme.parse(override.scheme).precision
        words.append(f"({_abbreviated(override.layers, 'module')} in {precision})")
    if choice.exclusions:
        words.append(f"(keeps {_abbreviated(choice.exclusions, 'sensitive module')})")
    if choice.fuse_qkv:
        words.append("+ fused QKV")
    return " ".join(words)


def _abbreviated(paths: tuple[str, ...], kind: str) -> str:
    names = ", ".join(paths)
    if len(names) <= _LONGEST_NAMES:
        return names
    return f"{len(paths)} {kind}{'s' if len(paths) > 1 else ''}"
