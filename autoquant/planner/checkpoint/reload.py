"""Load a checkpoint in a process of its own, as anybody would, and say what came out.

``python -m autoquant.planner.checkpoint.reload REQUEST`` reads a JSON file and writes the images
and the bytes of each component beside it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from autoquant.errors import InputError
from autoquant.planner.drawing import Images, draw
from autoquant.planner.workload import Workload

_LAST_LINES = 3


@dataclass(frozen=True)
class Reloaded:
    """What a checkpoint is once it is loaded.

    Attributes:
        component_bytes: Bytes that each component holds.
        images: The first batch of the workload.
    """

    component_bytes: Mapping[str, int]
    images: Images


def first_batch(pipeline: Any, workload: Workload) -> Images:
    """Draw what checkpoints are compared by."""
    return draw(pipeline, workload, next(iter(workload.batches())))


def component_bytes(pipeline: Any) -> dict[str, int]:
    """Bytes that each torch component of ``pipeline`` holds."""
    import torch

    from autoquant.storage import held_bytes

    return {
        name: held_bytes(part)
        for name, part in pipeline.components.items()
        if isinstance(part, torch.nn.Module)
    }


def reload(checkpoint: Path, workload: Workload, compute_dtype: str, device: str) -> Reloaded:
    """Load ``checkpoint`` in a fresh process with plain diffusers, and draw with it.

    Raises:
        InputError: It cannot be loaded or drawn with; the message ends as the process did.
    """
    with TemporaryDirectory(prefix="autoquant-") as folder:
        request = Path(folder) / "request.json"
        entries = {
            "checkpoint": str(checkpoint.resolve()),
            "workload": workload.model_dump(mode="json"),
            "dtype": compute_dtype,
            "device": device,
        }
        request.write_text(json.dumps(entries), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "autoquant.planner.checkpoint.reload", str(request)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            last = " ".join(done.stderr.strip().splitlines()[-_LAST_LINES:])
            raise InputError(f"The checkpoint was written but cannot be loaded again: {last}")
        answer = json.loads(request.with_name("bytes.json").read_text(encoding="utf-8"))
        return Reloaded(answer, np.load(request.with_name("images.npy"), allow_pickle=False))


def reload_here(checkpoint: Path, workload: Workload, compute_dtype: str, device: str) -> Reloaded:
    """``reload`` in this process, where what wrote the checkpoint may have left its marks."""
    import torch
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(
        str(checkpoint), dtype=getattr(torch, compute_dtype), use_safetensors=True
    ).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return Reloaded(component_bytes(pipeline), first_batch(pipeline, workload))


def _main(request: Path) -> None:
    entries = json.loads(request.read_text(encoding="utf-8"))
    reloaded = reload_here(
        Path(entries["checkpoint"]),
        Workload.model_validate(entries["workload"]),
        entries["dtype"],
        entries["device"],
    )
    np.save(request.with_name("images.npy"), reloaded.images, allow_pickle=False)
    held = json.dumps(dict(reloaded.component_bytes))
    request.with_name("bytes.json").write_text(held, encoding="utf-8")


if __name__ == "__main__":
    from autoquant.console.quiet import quiet_libraries

    quiet_libraries()
    _main(Path(sys.argv[1]))
