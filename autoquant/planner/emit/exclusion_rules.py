"""How each loader decides which layers to leave alone, and how an exact path is spelled for it.

Every loader has a rule of its own, and most take a path for more than itself: in a FluxPipeline,
diffusers' torchao reads ``transformer_blocks.0.attn.to_q`` as a part of
``single_transformer_blocks.0.attn.to_q`` too. So each path is spelled as exactly as the rule
allows, and the rule is then applied to every layer to see what it really leaves alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from autoquant.planner.emit.layout import ComponentLayout


@dataclass(frozen=True)
class ExclusionRule:
    """One loader's rule.

    Attributes:
        spell: Writes the exact path of a Linear module in the loader's language.
        matches: Whether the loader takes ``(entry, path)`` for a layer to leave alone.
        heeds_float32: Whether it also leaves alone what the model's class keeps in float32.
    """

    spell: Callable[[str], str]
    matches: Callable[[str, str], bool]
    heeds_float32: bool = True


@dataclass(frozen=True)
class SpelledExclusions:
    """A component's kept layers in a loader's language.

    Attributes:
        entries: The list for the loader, in module order, each once.
        also_kept: Layers that the plan quantizes, but that this loader will leave alone with it.
    """

    entries: tuple[str, ...]
    also_kept: tuple[str, ...]


def spell_kept_layers(component: ComponentLayout, rule: ExclusionRule) -> SpelledExclusions:
    """Write the component's kept layers for a loader, and find what else it will leave alone."""
    entries = tuple(dict.fromkeys(rule.spell(path) for path in component.kept))
    every_entry = (*entries, *(component.kept_in_float32 if rule.heeds_float32 else ()))
    return SpelledExclusions(
        entries=entries,
        also_kept=tuple(
            path
            for path in component.quantized
            if any(rule.matches(entry, path) for entry in every_entry)
        ),
    )


def _leaf(path: str) -> str:
    return path.rpartition(".")[2]


def _is_inside(entry: str, name: str) -> bool:
    return f"{entry}." in name or entry == name


def _transformers_matches(entry: str, name: str) -> bool:
    # transformers 5.23 quantizers/quantizers_utils.py, should_convert_module: the entry is a
    # regular expression at the start of the name, or its literal end.
    boundary = r"(?:(?<=\.)|(?=\.|$))"
    return bool(re.match(rf"(?:{entry}){boundary}", name)) or name.endswith(entry)


# diffusers 0.42 quantizers/torchao/torchao_quantizer.py, check_if_quantized_param: parameter names.
DIFFUSERS_TORCHAO = ExclusionRule(
    spell=lambda path: f"{path}.weight",
    matches=lambda entry, path: _is_inside(entry, f"{path}.weight"),
)
# diffusers 0.42 quantizers/bitsandbytes/utils.py, _replace_with_bnb_linear: module paths, and a
# module's own name too: `proj_out` stands for every proj_out.
DIFFUSERS_BITSANDBYTES = ExclusionRule(
    spell=str, matches=lambda entry, path: _is_inside(entry, path) or _leaf(path) == entry
)
# diffusers 0.42 quantizers/quanto/utils.py, _replace_layers: a module's own name alone.
DIFFUSERS_QUANTO = ExclusionRule(spell=_leaf, matches=lambda entry, path: entry == _leaf(path))
# transformers 5.23 integrations/bitsandbytes.py and quanto.py: module paths.
TRANSFORMERS_MODULES = ExclusionRule(
    spell=lambda path: f"{re.escape(path)}$", matches=_transformers_matches
)
# transformers 5.23 quantizers/quantizer_torchao.py, param_needs_quantization: parameter names.
TRANSFORMERS_TORCHAO = ExclusionRule(
    spell=lambda path: rf"{re.escape(path)}\.weight$",
    matches=lambda entry, path: _transformers_matches(entry, f"{path}.weight"),
)
# sdnq 0.2.8 utils.py, check_param_name_in: parameter names, or one whole name in them.
SDNQ = ExclusionRule(
    spell=lambda path: f"{path}.weight",
    matches=lambda entry, path: entry in {f"{path}.weight", *path.split(".")},
)
# cache-dit 1.5 quantization/torchao/quantize_ao.py, is_exclude_layer: any part of the module path.
CACHE_DIT = ExclusionRule(spell=str, matches=lambda entry, path: entry in path, heeds_float32=False)
# sglang 0.5.23 srt/layers/quantization/utils.py, _module_path_match: whole names in a row.
SGLANG = ExclusionRule(
    spell=str, matches=lambda entry, path: f".{entry}." in f".{path}.", heeds_float32=False
)


def _list_or_itself(path: str) -> str:
    parent, _, leaf = path.rpartition(".")
    return rf"{re.escape(parent)}(\.\d+)?" if leaf.isdecimal() else re.escape(path)


# OneTrainer at 23df3832, modules/util/quantization_util.py: layers straight inside a list go by the
# name of the list. Entries are joined to one regular expression.
ONETRAINER = ExclusionRule(
    spell=_list_or_itself, matches=lambda entry, path: bool(re.fullmatch(entry, path))
)
