"""The names that Flux transformers have in single files: those of Black Forest Labs' own code.

Each tensor of a single file is one tensor of diffusers, or several on top of each other (diffusers
loaders/single_file_utils.py, convert_flux_transformer_checkpoint_to_diffusers, goes the other way).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

_WHOLE = {
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "txt_in": "context_embedder",
    "img_in": "x_embedder",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
_DOUBLE = {
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
_SINGLE = {
    "modulation.lin": ("norm.linear",),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
}
_DOUBLE_NORMS = {
    "img_attn.norm.query_norm.scale": "attn.norm_q.weight",
    "img_attn.norm.key_norm.scale": "attn.norm_k.weight",
    "txt_attn.norm.query_norm.scale": "attn.norm_added_q.weight",
    "txt_attn.norm.key_norm.scale": "attn.norm_added_k.weight",
}
_SINGLE_NORMS = {
    "norm.query_norm.scale": "attn.norm_q.weight",
    "norm.key_norm.scale": "attn.norm_k.weight",
}

# Black Forest Labs put shift before scale, diffusers scale before shift.
HALVES_SWAPPED = "final_layer.adaLN_modulation.1."


def single_file_tensors(names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """For each tensor of a single file, the diffusers tensors that it is made of, top to bottom.

    Args:
        names: The tensor names of the diffusers model.
    """
    known = set(names)
    return {
        native: parts for native, parts in _candidates(_blocks(names)) if known.issuperset(parts)
    }


def _blocks(names: Collection[str]) -> set[tuple[str, str]]:
    split = (name.split(".", 2) for name in names)
    return {(first, rest[0]) for first, *rest in split if rest and rest[0].isdecimal()}


def _candidates(blocks: set[tuple[str, str]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for ending in ("weight", "bias"):
        for native, path in _WHOLE.items():
            yield f"{native}.{ending}", (f"{path}.{ending}",)
    tables = {
        "transformer_blocks": ("double_blocks", _DOUBLE, _DOUBLE_NORMS),
        "single_transformer_blocks": ("single_blocks", _SINGLE, _SINGLE_NORMS),
    }
    for ours, number in sorted(blocks):
        theirs, layers, norms = tables[ours]
        for native, paths in layers.items():
            for ending in ("weight", "bias"):
                yield (
                    f"{theirs}.{number}.{native}.{ending}",
                    tuple(f"{ours}.{number}.{path}.{ending}" for path in paths),
                )
        for native, path in norms.items():
            yield f"{theirs}.{number}.{native}", (f"{ours}.{number}.{path}",)
