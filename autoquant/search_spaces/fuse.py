"""Fused query, key and value projections: one wide layer where the model had two or three."""

# No `from __future__ import annotations`: fuse_qkv is copied into scripts that may not have it.
import copy
import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any

from autoquant.errors import InputError
from autoquant.search_spaces.linears import linears

if TYPE_CHECKING:
    import torch

# What diffusers' fuse_projections() builds, and from what (diffusers models/attention.py,
# attention_processor.py, transformer_wan.py).
FUSED_FROM = {
    "to_qkv": ("to_q", "to_k", "to_v"),
    "to_kv": ("to_k", "to_v"),
    "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
    "to_added_kv": ("add_k_proj", "add_v_proj"),
}


def can_fuse(module: "torch.nn.Module") -> bool:
    """Whether the model can fuse the projections of at least one attention layer."""
    return not isinstance(_try_to_fuse(module), str)


def fused_skeleton(module: "torch.nn.Module") -> "torch.nn.Module":
    """A copy of ``module`` on the meta device with its projections fused; ``module`` is untouched.

    Raises:
        InputError: The model has no projections that can be fused.
    """
    skeleton = _try_to_fuse(module)
    if isinstance(skeleton, str):
        raise InputError(
            f"The projections of this {type(module).__name__} cannot be fused ({skeleton}): "
            "set fuse_qkv=False."
        )
    return skeleton


def unfused_paths(module: "torch.nn.Module") -> dict[str, str]:
    """Map each projection path as it was before fusing to the fused layer's path in ``module``."""
    return {
        _sibling(path, original): path
        for path in linears(module)
        for original in FUSED_FROM.get(path.rpartition(".")[2], ())
    }


def fuse_qkv(module: "torch.nn.Module") -> None:
    """Fuse the attention projections in place and drop the originals, so that no byte is added."""
    fused_from = {
        "to_qkv": ("to_q", "to_k", "to_v"),
        "to_kv": ("to_k", "to_v"),
        "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
        "to_added_kv": ("add_k_proj", "add_v_proj"),
    }
    module.fuse_qkv_projections()  # type: ignore[operator]
    for attention in module.modules():
        if not getattr(attention, "fused_projections", False):
            continue
        for fused, originals in fused_from.items():
            if hasattr(attention, fused):
                for original in originals:
                    if hasattr(attention, original):
                        delattr(attention, original)
    module.requires_grad_(False).eval()


def _sibling(path: str, name: str) -> str:
    parent, dot, _ = path.rpartition(".")
    return f"{parent}{dot}{name}"


def _try_to_fuse(module: "torch.nn.Module") -> "torch.nn.Module | str":
    """Fuse a copy without weights; the reason in words where the model cannot."""
    if not hasattr(module, "fuse_qkv_projections"):
        return "it has no fuse_qkv_projections()"
    skeleton = without_weights(module)
    try:
        fuse_qkv(skeleton)
    except (AttributeError, NotImplementedError, ValueError) as refusal:
        # ValueError is how diffusers refuses; an AttributeError is an attention class that inherits
        # fuse_projections() but lacks an attribute that it reads.
        return f"{type(refusal).__name__}: {refusal}"
    if set(linears(skeleton)) <= set(linears(module)):
        return "none of its attention layers supports it"
    return _unread_fusion(skeleton) or skeleton


def _unread_fusion(skeleton: "torch.nn.Module") -> str | None:
    """Name a processor that would go on asking for the projections that fusing has replaced.

    Every attention class of diffusers inherits fuse_projections(), but some processors never look
    for the fused layer (Krea2AttnProcessor in diffusers 0.42).
    """
    for attention in skeleton.modules():
        if not getattr(attention, "fused_projections", False):
            continue
        reader = type(getattr(attention, "processor", attention))
        source = _source_of_module(reader.__module__)
        for fused in FUSED_FROM:
            if hasattr(attention, fused) and f".{fused}" not in source:
                return f"{reader.__name__} never reads {fused}"
    return None


@functools.cache
def _source_of_module(name: str) -> str:
    return inspect.getsource(sys.modules[name])


def without_weights(module: "torch.nn.Module") -> "torch.nn.Module":
    """A deep copy whose parameters and buffers are meta tensors."""
    import torch

    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        empty = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = torch.nn.Parameter(empty, parameter.requires_grad)
    for buffer in module.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(module, memo)
