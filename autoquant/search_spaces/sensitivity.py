"""What is known about each pipeline family: which layers are sensitive, and what is not searched.

The knowledge is data, one YAML file a family in ``families/``; this file reads it.
"""

from __future__ import annotations

import functools
import importlib.resources
import re
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from autoquant.errors import InputError
from autoquant.search_spaces.exclusions import without_excluded
from autoquant.search_spaces.linears import linears

if TYPE_CHECKING:
    from torch import nn

GENERIC = "generic"

Tier = Literal["boundary", "modulation", "costly"]
"""``boundary``: first and last layers, few weights. ``modulation``: AdaLN, many weights.
``costly``: parts of every block that somebody measured to break, most weights."""

_TIERS: tuple[Tier, ...] = ("boundary", "modulation", "costly")


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    return pattern


Regex = Annotated[str, AfterValidator(_compiles)]
Sentence = Annotated[str, Field(min_length=1)]


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SensitiveLayers(_Data):
    """Layers of some models that are known to be sensitive.

    Attributes:
        models: Regular expression that matches the whole class name of the model.
        tier: How costly it is to leave them out.
        layers: Regular expressions, each matching a whole module path.
        why: What goes wrong if they are quantized.
        source: Where this is known from.
    """

    models: Regex
    tier: Tier
    layers: tuple[Regex, ...] = Field(min_length=1)
    why: Sentence
    source: Sentence


class NotSearched(_Data):
    """Models that are left as they are, by class name, and why."""

    models: Regex
    why: Sentence


class Pointless(_Data):
    """Schemes that gain nothing on some models, and why; they are tried only if named."""

    models: Regex
    schemes: Regex
    why: Sentence
    source: Sentence


class Family(_Data):
    """One family file."""

    family: Sentence
    pipelines: Regex
    sensitive: tuple[SensitiveLayers, ...]
    pointless: tuple[Pointless, ...] = ()


class Generic(Family):
    """The file for unknown families; it also holds the rules of the search as a whole.

    Attributes:
        not_searched: Models that are never quantized.
        smallest_linear_share: Least share of a component's bytes in linear layers, from 0 to 1.
        off_by_default: Schemes that are searched only if they are asked for, and why.
    """

    not_searched: tuple[NotSearched, ...]
    smallest_linear_share: float = Field(ge=0.0, le=1.0)
    off_by_default: dict[str, Sentence]


_Model = TypeVar("_Model", bound=Family)


def read_family(text: str, origin: str, model: type[_Model]) -> _Model:
    """Read one family file.

    Args:
        text: The YAML text.
        origin: What to call it in errors.
        model: ``Family`` or ``Generic``.

    Raises:
        InputError: The text is no YAML, or a field is missing, unknown or wrong.
    """
    try:
        return model.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise InputError(f"The family file {origin} is no YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the top level"
        raise InputError(
            f"The family file {origin} is wrong at {place}: {first['msg']}. "
            "Compare it with generic.yaml."
        ) from error


@functools.cache
def generic() -> Generic:
    """The rules for unknown families and for the search as a whole."""
    return read_family(_folder().joinpath("generic.yaml").read_text("utf-8"), GENERIC, Generic)


@functools.cache
def families() -> tuple[Family, ...]:
    """The known families, by file name; ``generic`` is not among them."""
    files = sorted(
        (file for file in _folder().iterdir() if file.name.endswith(".yaml")),
        key=lambda file: file.name,
    )
    return tuple(
        read_family(file.read_text("utf-8"), file.name, Family)
        for file in files
        if file.name != f"{GENERIC}.yaml"
    )


def sensitive_tiers(pipeline_class_name: str, module: nn.Module) -> dict[Tier, tuple[str, ...]]:
    """The sensitive layers of ``module`` by tier, as exact module paths in module order.

    A model that the pipeline's family does not mention follows the generic rules. A path stands for
    everything below it; paths below another one are not repeated.
    """
    name = type(module).__name__
    rules = _rules(pipeline_class_name, name)
    holders = _paths_with_linears(module)
    tiers: dict[Tier, tuple[str, ...]] = {}
    for tier in _TIERS:
        patterns = [pattern for rule in rules if rule.tier == tier for pattern in rule.layers]
        matched = [path for path in holders if any(re.fullmatch(p, path) for p in patterns)]
        outermost = tuple(
            path
            for path in matched
            if without_excluded([path], [other for other in matched if other != path])
        )
        if outermost:
            tiers[tier] = outermost
    return tiers


def why_pointless(pipeline_class_name: str, model_name: str, scheme: str) -> str | None:
    """Why ``scheme`` gains nothing on this model; None if it may."""
    own = [
        family
        for family in families()
        if re.fullmatch(family.pipelines, pipeline_class_name) is not None
    ]
    for family in (*own, generic()):
        for rule in family.pointless:
            if re.fullmatch(rule.models, model_name) and re.fullmatch(rule.schemes, scheme):
                return rule.why
    return None


def sensitive_layers(
    pipeline_class_name: str, component_name: str, module: nn.Module
) -> tuple[str, ...]:
    """All sensitive layers of a component, as exact module paths, sorted.

    Args:
        pipeline_class_name: Like ``FluxPipeline``; decides the family.
        component_name: Not read: class names decide, since ``text_encoder_2`` is a T5 in one
            pipeline and a CLIP in another.
        module: The component; it may be on the meta device.
    """
    del component_name
    tiers = sensitive_tiers(pipeline_class_name, module)
    return tuple(sorted({path for paths in tiers.values() for path in paths}))


def _rules(pipeline_class_name: str, model_name: str) -> list[SensitiveLayers]:
    for family in families():
        if re.fullmatch(family.pipelines, pipeline_class_name):
            own = [rule for rule in family.sensitive if re.fullmatch(rule.models, model_name)]
            if own:
                return own
    return [rule for rule in generic().sensitive if re.fullmatch(rule.models, model_name)]


def _paths_with_linears(module: nn.Module) -> list[str]:
    layers = linears(module)
    holders = {path.rsplit(".", cut)[0] for path in layers for cut in range(path.count(".") + 1)}
    return [path for path, _ in module.named_modules() if path in holders]


def _folder() -> importlib.resources.abc.Traversable:
    return importlib.resources.files("autoquant.search_spaces") / "families"
