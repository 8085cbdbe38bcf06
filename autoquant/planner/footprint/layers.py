"""Which stored tensors are Linear weights, and which of them a scheme may touch, by name and shape.

The light twin of search_spaces/linears.py, which looks at modules; tests hold the two together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from autoquant.planner.footprint.shapes import FLOATS, ComponentShapes, TensorShape
from autoquant.search_spaces.linears import SMALLEST_WEIGHT, SMALLEST_WIDTH

_WEIGHT = ".weight"
_REMEMBERED = 64  # components, several times what one pipeline has

# Tables that are looked up, not multiplied with: nn.Embedding keeps a 2-D `weight` too.
_LOOKED_UP = re.compile(
    r"(?:^|\.)(?:shared|embed_tokens|embed_positions|wte|wpe|word_embeddings|tok_embeddings"
    r"|\w*embeddings?|relative_attention_bias|embedding_table|embed_image_indicator)$"
)
# Names that end like a table but belong to a Linear, or hold one (diffusers models).
_LINEAR_ALL_THE_SAME = re.compile(r"(?:^|\.)(?:linear_\d|linear|class_embedding)$")


@dataclass(frozen=True)
class ModelRule:
    """What the code of some models does with some of their layers.

    Attributes:
        models: Matches the whole class name.
        layers: Matches a part of the path between dots, or the whole of it.
        float32: When loading keeps them in float32: always, for float16 only, or never.
        int8_too: Whether schemes that store int8 may touch them although their dtype is read.
    """

    models: str
    layers: str
    float32: str
    int8_too: bool


_RULES = (
    # transformers 5.23 models/t5/modeling_t5.py: _keep_in_fp32_modules, which loading heeds for
    # float16 alone (modeling_utils.py), and `self.wo.weight.dtype`, with a branch for int8.
    ModelRule(r"(U?M?T5|Pop2Piano|Udop)\w*", "wo", "float16", int8_too=True),
    # diffusers 0.42 models/transformers: _keep_in_fp32_modules, heeded for every dtype.
    ModelRule(r"Krea2\w*", "norm|norm1|norm2|norm_q|norm_k", "always", int8_too=False),
    ModelRule(
        r"Kandinsky5\w*",
        "time_embeddings|modulation|visual_modulation|text_modulation",
        "always",
        int8_too=False,
    ),
    ModelRule(r"Kandinsky6\w*", "time_embeddings|modulation", "always", int8_too=False),
    # diffusers 0.42 transformer_z_image.py: `self.mlp[0].weight.dtype` of the time embedder.
    ModelRule(r"ZImage\w*", r"(.*\.)?t_embedder\.mlp\.0", "never", int8_too=False),
    ModelRule(r"Flux3\w*", "norm_q|norm_k", "always", int8_too=False),
    ModelRule(
        r"(Wan|SkyReels|JoyImage|AnyFlow|ChronoEdit|Helios)\w*",
        "rope|time_embedder|scale_shift_table|norm1|norm2|norm3",
        "always",
        int8_too=False,
    ),
)


def linear_layers(component: ComponentShapes) -> dict[str, TensorShape]:
    """Weights of the component's Linear layers by module path, in the order of the header."""
    ignored = tied_names(component)
    return {
        name.removesuffix(_WEIGHT): tensor
        for name, tensor in component.tensors.items()
        if name.endswith(_WEIGHT)
        and len(tensor.shape) == 2
        and name not in ignored
        and not is_looked_up(name.removesuffix(_WEIGHT))
    }


@lru_cache(maxsize=_REMEMBERED)
def eligible_layers(component: ComponentShapes) -> Mapping[str, TensorShape]:
    """The Linear layers that any backend may try: floating, untied, big enough to gain."""
    return MappingProxyType(
        {
            path: tensor
            for path, tensor in linear_layers(component).items()
            if tensor.dtype in FLOATS
            and tensor.shape[1] >= SMALLEST_WIDTH
            and tensor.elements >= SMALLEST_WEIGHT
            and not _is_tied_output(component, path)
        }
    )


def is_looked_up(path: str) -> bool:
    """Whether the 2-D weight at ``path`` is a table of embeddings."""
    return bool(_LOOKED_UP.search(path)) and not _LINEAR_ALL_THE_SAME.search(path)


def tied_names(component: ComponentShapes) -> frozenset[str]:
    """Stored copies of a tensor that the loaded model holds once, under another name."""
    names = component.tensors.keys()
    copies = {"encoder.embed_tokens.weight"} if "shared.weight" in names else set()
    if _ties_words(component):
        copies.add("lm_head.weight")
    return frozenset(copies & names)


def is_dtype_sensitive(component: ComponentShapes, path: str, *, int8: bool) -> bool:
    """Whether the model reads the stored dtype of the layer at ``path``, or keeps it in float32."""
    return any(
        _concerns(rule, path) and not (int8 and rule.int8_too)
        for rule in _rules(component.class_name)
    )


def is_kept_in_float32(component: ComponentShapes, name: str, compute_dtype: str) -> bool:
    """Whether loading in ``compute_dtype`` leaves the tensor called ``name`` in float32."""
    return any(
        rule.float32 in {"always", compute_dtype} and _concerns(rule, name)
        for rule in _rules(component.class_name)
    )


@lru_cache(maxsize=_REMEMBERED)
def _rules(class_name: str) -> tuple[ModelRule, ...]:
    return tuple(rule for rule in _RULES if re.fullmatch(rule.models, class_name))


def _concerns(rule: ModelRule, name: str) -> bool:
    return any(re.fullmatch(rule.layers, part) for part in (name, *name.split(".")))


def _ties_words(component: ComponentShapes) -> bool:
    text_config = component.config.get("text_config")
    configs = [component.config, text_config if isinstance(text_config, dict) else {}]
    return any(config.get("tie_word_embeddings") is True for config in configs)


def _is_tied_output(component: ComponentShapes, path: str) -> bool:
    return path == "lm_head" and _ties_words(component)
