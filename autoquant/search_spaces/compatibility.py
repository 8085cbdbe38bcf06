"""What does not go together: backend and scheme with device, offload, compile, LoRA and saving.

The knowledge is data, ``compatibility.yaml``; this file reads it. Nothing here imports torch.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.resources
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import yaml
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from autoquant.errors import InputError
from autoquant.search_spaces.quantized_folder import read_quantized_folder
from autoquant.search_spaces.scheme import CHECKPOINT, Scheme
from autoquant.search_spaces.sensitivity import Regex, Sentence

FILE = "compatibility.yaml"


def _specifies(text: str) -> str:
    try:
        SpecifierSet(text)
    except InvalidSpecifier as error:
        raise ValueError(f"{text!r} is no version range like '>=0.33,<0.43'") from error
    return text


class Rule(BaseModel):
    """One entry of the table; the head of ``compatibility.yaml`` explains the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schemes: Regex
    devices: tuple[str, ...] | None = None
    capability_below: tuple[int, int] | None = None
    capability_from: tuple[int, int] | None = None
    compute_dtypes: tuple[str, ...] | None = None
    components: Regex | None = None
    offload: Regex | None = None
    compile: Regex | None = None
    lora: bool = False
    save: bool = False
    versions: dict[str, Annotated[str, AfterValidator(_specifies)]] = Field(default_factory=dict)
    reason: Sentence
    source: Sentence

    @property
    def levers(self) -> tuple[str, ...]:
        """The levers that must be used for the rule to hold."""
        names = ("offload", "compile", "lora", "save")
        return tuple(name for name in names if getattr(self, name))


@dataclass(frozen=True)
class Conflict:
    """Why a scheme cannot be combined with something.

    Attributes:
        scheme: Like ``torchao:int4wo``.
        levers: What it cannot be combined with; empty if the device or the dtype forbids it.
        reason: One line.
        source: Where that is known from.
    """

    scheme: str
    levers: tuple[str, ...]
    reason: str
    source: str


def conflicts(
    scheme: str,
    device_kind: str,
    versions: Mapping[str, str] | None = None,
    *,
    capability: tuple[int, int] | None = None,
    compute_dtype: str | None = None,
    component: str | None = None,
    offload: str | None = None,
    compile: str | None = None,
    lora: bool = False,
    save: bool = False,
) -> list[Conflict]:
    """Every rule that forbids ``scheme`` under these conditions.

    What is left out meets no rule that asks for it, so that each condition can be asked alone.

    Args:
        scheme: Like ``torchao:int4wo``.
        device_kind: torch's device type.
        versions: Installed versions by distribution; by default those of this process.
        capability: CUDA compute capability of the device.
        compute_dtype: Like ``bfloat16``.
        component: Library and class, like ``transformers.T5EncoderModel``.
        offload: The offload lever, like ``model`` or ``group_leaf_stream``; None is none.
        compile: The compile lever, like ``regional``; None is none.
        lora: Whether adapters are loaded beside the quantized weights.
        save: Whether the quantized component is to be saved and loaded again.
    """
    found = []
    names = _names(scheme)
    for rule in rules():
        met = (
            any(re.fullmatch(rule.schemes, name) for name in names)
            and (rule.devices is None or device_kind in rule.devices)
            and (rule.capability_below is None or _below(capability, rule.capability_below))
            and (rule.capability_from is None or _reaches(capability, rule.capability_from))
            and (rule.compute_dtypes is None or compute_dtype in rule.compute_dtypes)
            and _matches(rule.components, component)
            and _matches(rule.offload, offload)
            and _matches(rule.compile, compile)
            and (lora or not rule.lora)
            and (save or not rule.save)
            and all(_within(name, text, versions) for name, text in rule.versions.items())
        )
        if met:
            found.append(Conflict(scheme, rule.levers, rule.reason, rule.source))
    return found


@functools.cache
def rules() -> tuple[Rule, ...]:
    """The table."""
    folder = importlib.resources.files("autoquant.search_spaces")
    return read_rules(folder.joinpath(FILE).read_text("utf-8"), FILE)


def read_rules(text: str, origin: str) -> tuple[Rule, ...]:
    """Read a compatibility table.

    Raises:
        InputError: The text is no YAML, or a field is missing, unknown or wrong.
    """
    try:
        return TypeAdapter(tuple[Rule, ...]).validate_python(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise InputError(f"The table {origin} is no YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the top level"
        raise InputError(f"The table {origin} is wrong at {place}: {first['msg']}.") from error


def _below(capability: tuple[int, int] | None, bound: tuple[int, int]) -> bool:
    return capability is not None and capability < bound


def _reaches(capability: tuple[int, int] | None, bound: tuple[int, int]) -> bool:
    return capability is not None and capability >= bound


def _names(scheme: str) -> tuple[str, ...]:
    """What rules may call ``scheme``: a checkpoint is one of its kind, and weights of that kind."""
    parsed = Scheme.parse(scheme)
    if parsed.backend != CHECKPOINT:
        return (scheme,)
    try:
        kind = read_quantized_folder(parsed.precision).kind
    except InputError:  # told where it is named; or METHOD:PRECISION itself
        return (scheme,)
    return (f"{CHECKPOINT}:{kind}", kind)


def _matches(pattern: str | None, value: str | None) -> bool:
    if pattern is None:
        return True
    return value is not None and re.fullmatch(pattern, value) is not None


def _within(distribution: str, specifier: str, versions: Mapping[str, str] | None) -> bool:
    version = _installed(distribution) if versions is None else versions.get(distribution)
    return version is not None and SpecifierSet(specifier).contains(version, prereleases=True)


def _installed(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
