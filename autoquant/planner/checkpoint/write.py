"""Write the planned pipeline as a folder that plain diffusers loads, and prove that it does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoquant.errors import QuantizationMismatch
from autoquant.files import write_text
from autoquant.metrics.device import resolve_device
from autoquant.planner.building import build_pipeline
from autoquant.planner.candidate import Runtime
from autoquant.planner.checkpoint.licences import copy_licences, is_hub_id, licence_entries
from autoquant.planner.checkpoint.model_card import model_card
from autoquant.planner.checkpoint.quantizers import attach_quantizer, saveable
from autoquant.planner.checkpoint.reload import Reloaded, component_bytes, first_batch, reload
from autoquant.planner.emit.emission import require_no_adapters, require_same_versions
from autoquant.planner.emit.layout import read_layout
from autoquant.planner.emit.wording import quantized_components
from autoquant.planner.execution import require_same_pipeline
from autoquant.planner.loading import DirectoryLoader
from autoquant.planner.measurement import GIB
from autoquant.planner.output import OutputDirectory
from autoquant.planner.plan import Plan
from autoquant.planner.source import PipelineSource, find_source, local_directory

# Loading may lay tensors out a little differently: bitsandbytes keeps its code books apart.
_SAME_BYTES = 0.01
# Kernels that are chosen anew in each process move single pixels of quantized pipelines by up to
# 4 of 255 levels (SDNQ); a layer that was lost or damaged moves whole images.
_LARGEST_PIXEL_DIFFERENCE = 8 / 255


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was written, loaded in a fresh process, and found the same.

    Attributes:
        directory: Where it is.
        weights_gb: Bytes that its components hold once loaded, in GiB.
        stored_gb: Bytes of its files, in GiB.
        largest_pixel_difference: From the plan's own images, of 1.
        licences: Licence files that it carries.
    """

    directory: Path
    weights_gb: float
    stored_gb: float
    largest_pixel_difference: float
    licences: tuple[str, ...]


def write_checkpoint(
    plan: Plan,
    directory: Path,
    *,
    source: str | None = None,
    device: str | None = None,
    max_shard_size: str = "5GB",
    force: bool = False,
    overwrite: bool = False,
) -> Checkpoint:
    """Quantize as planned, save, load again in a fresh process, and compare.

    Args:
        plan: What to carry out.
        directory: Where the checkpoint goes, put in place once it is proved.
        source: Directory or hub id of the pipeline, if it has moved.
        device: Where to quantize and compare; by default the accelerator if there is one.
        max_shard_size: Largest file, like ``5GB``.
        force: Whether to go on although other versions are installed than were measured.
        overwrite: Whether to replace what ``directory`` holds.

    Raises:
        BackendUnavailable: A component cannot be saved; says what to use instead.
        QuantizationMismatch: What was loaded again is not what was saved. Nothing is left behind.
        InputError: ``directory`` holds files, versions differ, or the pipeline cannot be found.
    """
    if not force:
        require_same_versions(plan)
    require_no_adapters(plan)
    target = resolve_device(device)
    with OutputDirectory(directory, overwrite=overwrite) as output:
        layout = read_layout(plan, source)
        changed = {
            name: (layout.components[name], part.choice)
            for name, part in quantized_components(plan)
        }
        configs = saveable(changed, plan.runtime.compute_dtype, target.type)
        named = plan.pipeline.as_source() if source is None else find_source(source)
        original = local_directory(named)
        loader = DirectoryLoader(original)
        require_same_pipeline(plan, loader)
        # Levers are pulled anew by whoever loads; offload's hooks do not belong in a checkpoint.
        candidate = plan.candidate.model_copy(
            update={"runtime": Runtime(compute_dtype=plan.runtime.compute_dtype)}
        )
        pipeline = build_pipeline(loader, candidate, target).pipeline
        for name, config in configs.items():
            attach_quantizer(pipeline.components[name], config)
        # Before anything is drawn: the first forward of 4-bit bitsandbytes can repack its weights,
        # and what is saved afterwards is damaged.
        pipeline.save_pretrained(output.partial, max_shard_size=max_shard_size)
        _forget_local_paths(output.partial)
        licences = copy_licences(named, original, output.partial)
        write_text(output.partial / "README.md", _card(plan, named, original))
        plan.save(output.partial / "plan.json")
        difference = _compare(plan, pipeline, output.partial, str(target))
        weights = sum(component_bytes(pipeline).values())
        output.commit()
    return Checkpoint(
        directory=directory,
        weights_gb=weights / GIB,
        stored_gb=sum(f.stat().st_size for f in directory.rglob("*") if f.is_file()) / GIB,
        largest_pixel_difference=difference,
        licences=licences,
    )


def _card(plan: Plan, source: PipelineSource, original: Path) -> str:
    base_model = source.location if is_hub_id(source) else None
    return model_card(plan, base_model, licence_entries(original))


def _forget_local_paths(checkpoint: Path) -> None:
    """Take out where the original was on this machine, which diffusers writes into its configs."""
    for path in (checkpoint / "model_index.json", *checkpoint.glob("*/config.json")):
        entries = json.loads(path.read_text(encoding="utf-8"))
        if entries.pop("_name_or_path", None) is not None:
            write_text(path, json.dumps(entries, indent=2) + "\n")


def _compare(plan: Plan, pipeline: Any, checkpoint: Path, device: str) -> float:
    """Largest pixel difference between ``pipeline`` and its checkpoint.

    Raises:
        QuantizationMismatch: They hold other bytes, or draw other images.
    """
    expected = component_bytes(pipeline)
    images = first_batch(pipeline, plan.workload)
    reloaded: Reloaded = reload(checkpoint, plan.workload, plan.runtime.compute_dtype, device)
    for name, held in expected.items():
        again = reloaded.component_bytes.get(name, 0)
        if abs(again - held) > held * _SAME_BYTES:
            raise QuantizationMismatch(
                f"The checkpoint is not the plan: {name} holds {held} bytes, loaded again {again}. "
                "Nothing was kept; use the loader script: autoquant emit PLAN --to diffusers."
            )
    difference = float(np.abs(images - reloaded.images).max())
    if not difference <= _LARGEST_PIXEL_DIFFERENCE:
        raise QuantizationMismatch(
            f"The checkpoint is not the plan: loaded again, it draws images that differ by up to "
            f"{difference * 255:.0f} of 255. Nothing was kept; use the loader script: autoquant "
            "emit PLAN --to diffusers."
        )
    return difference
