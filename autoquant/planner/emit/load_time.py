"""A component's choice as the quantization config that diffusers or transformers applies on load.

The classes are called by name, so that this can be written as Python, as JSON, or carried out.
"""

from __future__ import annotations

import textwrap
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pprint import pformat
from typing import Any

from autoquant.planner.emit.exclusion_rules import (
    DIFFUSERS_BITSANDBYTES,
    DIFFUSERS_QUANTO,
    DIFFUSERS_TORCHAO,
    SDNQ,
    TRANSFORMERS_MODULES,
    TRANSFORMERS_TORCHAO,
    ExclusionRule,
    spell_kept_layers,
)
from autoquant.planner.emit.layout import ComponentLayout
from autoquant.search_spaces.scheme import Choice, Scheme


@dataclass(frozen=True)
class TorchaoType:
    """A configuration class of torchao.quantization and its arguments."""

    class_name: str
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def build(self) -> Any:
        """The object; torchao must be installed."""
        from torchao import quantization

        return getattr(quantization, self.class_name)(**self._live_arguments(quantization))

    def as_python(self) -> str:
        """The expression that builds it after ``from torchao import quantization``."""
        arguments = ", ".join(
            f"{key}=quantization.PerRow()" if value == PER_ROW else f"{key}={value!r}"
            for key, value in self.arguments.items()
        )
        return f"quantization.{self.class_name}({arguments})"

    def _live_arguments(self, quantization: Any) -> dict[str, Any]:
        return {
            key: quantization.PerRow() if value == PER_ROW else value
            for key, value in self.arguments.items()
        }


@dataclass(frozen=True)
class TorchaoTypes:
    """A configuration class for each layer.

    Every layer is named by its weight: a module's name would stand for its bias too, and what is
    left to a default is quantized wherever transformers finds a Linear.

    Attributes:
        layers: Exact module paths of the layers of each type.
    """

    layers: Mapping[TorchaoType, tuple[str, ...]]
    class_name = "FqnToConfig"

    def build(self) -> Any:
        """The object; torchao must be installed."""
        from torchao import quantization

        return quantization.FqnToConfig(
            OrderedDict(
                (f"{path}.weight", config)
                for config, paths in ((kind.build(), paths) for kind, paths in self.layers.items())
                for path in paths
            )
        )

    def as_python(self) -> str:
        """The expression that builds it after ``from torchao import quantization``."""
        parts = [
            "**dict.fromkeys(\n"
            + textwrap.indent(f"{_list_of_weights(paths)},\n{kind.as_python()},", "    ")
            + "\n),"
            for kind, paths in self.layers.items()
        ]
        inside = textwrap.indent("\n".join(parts), "    ")
        return f"quantization.FqnToConfig({{\n{inside}\n}})"


def _list_of_weights(paths: Sequence[str]) -> str:
    return pformat([f"{path}.weight" for path in paths], width=80)


PER_ROW = "<PerRow>"

# What search_spaces/backends/torchao.py passes; a test holds the two together.
TORCHAO_TYPES = {
    "int8wo": TorchaoType("Int8WeightOnlyConfig", {"set_inductor_config": False}),
    "float8wo": TorchaoType("Float8WeightOnlyConfig", {"set_inductor_config": False}),
    "int8dq": TorchaoType("Int8DynamicActivationInt8WeightConfig", {"set_inductor_config": False}),
    "float8dq": TorchaoType(
        "Float8DynamicActivationFloat8WeightConfig",
        {"granularity": PER_ROW, "set_inductor_config": False},
    ),
    "int4wo": TorchaoType(
        "Int4WeightOnlyConfig",
        {
            "group_size": 128,
            "int4_packing_format": "tile_packed_to_4d",
            "set_inductor_config": False,
        },
    ),
}


# Backends whose load-time config may say another precision for single layers.
_PER_LAYER = frozenset({"torchao", "sdnq"})


@dataclass(frozen=True)
class LoadTimeConfig:
    """One component's quantization config.

    Attributes:
        library: ``diffusers`` or ``transformers``, where the class is.
        class_name: The class.
        arguments: Its keyword arguments; dtypes by name.
        quant_type: The torchao configuration, or one for each layer; it is the first argument.
        exclusions_key: The argument that lists what is left alone.
        also_kept: Layers that the plan quantizes but this config will leave alone.
    """

    library: str
    class_name: str
    arguments: Mapping[str, Any]
    exclusions_key: str
    quant_type: TorchaoType | TorchaoTypes | None = None
    also_kept: tuple[str, ...] = ()

    def build(self) -> Any:
        """The config object."""
        import importlib

        config_class = getattr(importlib.import_module(self._home), self.class_name)
        # Loading adds to the list that it is given.
        arguments = {
            key: list(value) if isinstance(value, list) else value
            for key, value in self.arguments.items()
        }
        if self.quant_type is not None:
            arguments["quant_type"] = self.quant_type.build()
        return config_class(**arguments)

    def as_json(self) -> dict[str, Any]:
        """The config as its ``to_dict()`` writes it, less what is at its default."""
        method = {
            "BitsAndBytesConfig": "bitsandbytes",
            "QuantoConfig": "quanto",
            "SDNQConfig": "sdnq",
            "AutoRoundConfig": "auto-round",
        }
        entries: dict[str, Any] = {"quant_method": method.get(self.class_name, "torchao")}
        if self.quant_type is not None:
            from torchao.core.config import config_to_dict

            entries["quant_type"] = {"default": config_to_dict(self.quant_type.build())}
        return entries | dict(self.arguments)

    def as_python(self) -> str:
        """The expression that builds it after ``import diffusers, transformers``."""
        parts = [] if self.quant_type is None else [self.quant_type.as_python()]
        parts += [f"{key}={pformat(value, width=80)}" for key, value in self.arguments.items()]
        inside = textwrap.indent(",\n".join(parts), "    ")
        return f"{self._home}.{self.class_name}(\n{inside},\n)"

    @property
    def _home(self) -> str:
        """Where the class is; diffusers hands out SDNQ's own, which transformers takes too."""
        return "diffusers" if self.class_name == "SDNQConfig" else self.library


def load_time_config(
    component: ComponentLayout, choice: Choice, compute_dtype: str
) -> LoadTimeConfig | str:
    """The config that quantizes ``component`` as chosen while it is loaded.

    Returns:
        The config, or the reason why there is none.
    """
    if choice.fuse_qkv:
        return "projections can only be fused after loading and before quantizing"
    scheme = Scheme.parse(choice.scheme)
    makers = {
        "bitsandbytes": _bitsandbytes,
        "torchao": _torchao,
        "quanto": _quanto,
        "sdnq": _sdnq,
    }
    maker = makers.get(scheme.backend)
    made = None if maker is None else maker(component, scheme.precision, compute_dtype)
    if made is None:
        return f"{choice.scheme} is no load-time quantization of {component.library}"
    if choice.overrides and scheme.backend not in _PER_LAYER:
        return (
            f"{scheme.backend} has one precision for a whole component there, and the plan gives "
            f"some layers {', '.join(component.overridden)}"
        )
    return made


def _bitsandbytes(
    component: ComponentLayout, precision: str, compute_dtype: str
) -> LoadTimeConfig | None:
    is_diffusers = component.library == "diffusers"
    rule = DIFFUSERS_BITSANDBYTES if is_diffusers else TRANSFORMERS_MODULES
    settings: dict[str, Any]
    if precision == "int8":
        settings = {"load_in_8bit": True, "llm_int8_threshold": 6.0}
    elif precision in {"nf4", "fp4"}:
        settings = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": precision,
            "bnb_4bit_compute_dtype": compute_dtype,
        }
    else:
        return None
    return _made(component, "BitsAndBytesConfig", settings, "llm_int8_skip_modules", rule)


def _torchao(
    component: ComponentLayout, precision: str, compute_dtype: str
) -> LoadTimeConfig | None:
    if precision not in TORCHAO_TYPES:
        return None
    rule = DIFFUSERS_TORCHAO if component.library == "diffusers" else TRANSFORMERS_TORCHAO
    kind: TorchaoType | TorchaoTypes = TORCHAO_TYPES[precision]
    if component.overridden:
        kind = TorchaoTypes(
            {
                TORCHAO_TYPES[each]: paths
                for each, paths in _layers_by_precision(component, precision).items()
            }
        )
    return _made(component, "TorchAoConfig", {}, "modules_to_not_convert", rule, kind)


def _layers_by_precision(component: ComponentLayout, base: str) -> dict[str, tuple[str, ...]]:
    overridden = {path for paths in component.overridden.values() for path in paths}
    layers = {base: tuple(path for path in component.quantized if path not in overridden)}
    for scheme, paths in component.overridden.items():
        layers[Scheme.parse(scheme).precision] = paths
    return {precision: paths for precision, paths in layers.items() if paths}


def _quanto(
    component: ComponentLayout, precision: str, compute_dtype: str
) -> LoadTimeConfig | None:
    if precision not in {"int8", "int4", "int2", "float8"}:
        return None
    if component.library == "diffusers":
        rule, key = DIFFUSERS_QUANTO, "weights_dtype"
    else:
        rule, key = TRANSFORMERS_MODULES, "weights"
    return _made(component, "QuantoConfig", {key: precision}, "modules_to_not_convert", rule)


def _sdnq(component: ComponentLayout, precision: str, compute_dtype: str) -> LoadTimeConfig | str:
    first, has_bias = component.first_layer
    overridden = [s for s, paths in component.overridden.items() if first in paths]
    stored = Scheme.parse(overridden[0]).precision if overridden else precision
    if first in component.quantized and (stored.startswith("float8") or not has_bias):
        return (
            f"loaded so, the model reports the dtype in which SDNQ stores {first}, and pipelines "
            "cast their latents to it"
        )
    settings = {
        "weights_dtype": precision,
        # What is left alone is written down in full: neither lists by class nor least sizes.
        "add_skip_keys": False,
        "minimum_allowed_channel_size": 1,
        "minimum_allowed_numel": 1,
    }
    if component.overridden:
        settings["modules_dtype_dict"] = {
            Scheme.parse(scheme).precision: [SDNQ.spell(path) for path in paths]
            for scheme, paths in component.overridden.items()
        }
    return _made(component, "SDNQConfig", settings, "modules_to_not_convert", SDNQ)


def _made(
    component: ComponentLayout,
    class_name: str,
    settings: Mapping[str, Any],
    exclusions_key: str,
    rule: ExclusionRule,
    quant_type: TorchaoType | TorchaoTypes | None = None,
) -> LoadTimeConfig:
    spelled = spell_kept_layers(component, rule)
    return LoadTimeConfig(
        library=component.library,
        class_name=class_name,
        arguments={**settings, exclusions_key: list(spelled.entries)},
        exclusions_key=exclusions_key,
        quant_type=quant_type,
        also_kept=spelled.also_kept,
    )
