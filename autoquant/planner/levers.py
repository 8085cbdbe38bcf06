"""Pull the levers of a runtime on an assembled pipeline."""

# No `from __future__ import annotations`: the functions are copied into scripts as they stand, so
# each imports what it needs and refers to nothing of autoquant.
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from autoquant.planner.candidate import Runtime


def pull_levers(pipeline: Any, runtime: Runtime, device: Any) -> None:
    """Set up all of ``runtime`` but compilation, which is timed apart.

    Args:
        pipeline: A diffusers pipeline; on the CPU if ``runtime`` offloads, else on ``device``.
        runtime: The levers.
        device: Where the pipeline computes.
    """
    set_vae(pipeline, runtime.vae_tiling, runtime.vae_slicing)
    if runtime.attention != "default":
        set_attention(pipeline, runtime.attention)
    if runtime.offload != "none":
        enable_offload(pipeline, runtime.offload, device)


def set_vae(pipeline: Any, tiling: bool, slicing: bool) -> None:
    """Decode in tiles, or image by image, where that is asked for."""
    if tiling:
        pipeline.vae.enable_tiling()
    if slicing:
        pipeline.vae.enable_slicing()


def enable_offload(pipeline: Any, offload: str, device: Any) -> None:
    """Keep weights off ``device`` until they are needed.

    Args:
        pipeline: A diffusers pipeline whose components lie on the CPU.
        offload: ``model``, ``sequential``, or ``group_block`` or ``group_leaf`` with ``_stream``
            and ``_disk`` behind; the files of ``_disk`` go when the pipeline goes.
        device: Where it computes.
    """
    import shutil
    import tempfile
    import weakref

    import torch
    from diffusers.hooks import apply_group_offloading

    if offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
        return
    if offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
        return
    _, level, *ways = offload.split("_")
    disk_directory = None
    if "disk" in ways:
        disk_directory = tempfile.mkdtemp(prefix="offload-")
        weakref.finalize(pipeline, shutil.rmtree, disk_directory, ignore_errors=True)
    for name, component in pipeline.components.items():
        if not isinstance(component, torch.nn.Module):
            continue
        # Blocks are brought in by the forward of the whole; a VAE is entered through decode().
        in_blocks = hasattr(component, "compile_repeated_blocks")
        in_blocks = in_blocks and level == "block" and not hasattr(component, "decode")
        apply_group_offloading(
            component,
            onload_device=torch.device(device),
            offload_device=torch.device("cpu"),
            offload_type="block_level" if in_blocks else "leaf_level",
            num_blocks_per_group=1,
            use_stream="stream" in ways,
            offload_to_disk_path=f"{disk_directory}/{name}" if disk_directory else None,
        )


def compile_denoisers(pipeline: Any, compile: str) -> None:
    """Compile the models that run once a step: ``regional`` their repeated blocks, or ``whole``."""
    for component in pipeline.components.values():
        if hasattr(component, "compile_repeated_blocks") and not hasattr(component, "decode"):
            if compile == "regional":
                component.compile_repeated_blocks()
            else:
                component.compile()


def set_attention(pipeline: Any, attention: str) -> None:
    """Use another attention kernel of diffusers in the models that run once a step."""
    for component in pipeline.components.values():
        if hasattr(component, "set_attention_backend") and not hasattr(component, "decode"):
            component.set_attention_backend(attention)


@contextmanager
def attention_restored() -> Iterator[None]:
    """Undo what ``set_attention`` does beyond its pipeline.

    diffusers makes the kernel that was set last the default of the whole process.
    """
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry as Registry

    active = Registry.get_active_backend()[0]
    try:
        yield
    finally:
        Registry.set_active_backend(active)
