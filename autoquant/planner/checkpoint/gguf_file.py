"""Write a planned Flux transformer as a GGUF file, for the tools that read those.

ComfyUI-GGUF, stable-diffusion.cpp and diffusers read it: its names are those of single files. The
blocks are the ones that were measured; blocks run along rows, so layers that are one tensor in
single files are put on top of each other as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autoquant.errors import BackendUnavailable, QuantizationMismatch
from autoquant.planner.checkpoint.flux_names import HALVES_SWAPPED, single_file_tensors
from autoquant.planner.emit.emission import require_no_adapters, require_same_versions
from autoquant.planner.loading import DirectoryLoader
from autoquant.planner.measurement import GIB
from autoquant.planner.output import OutputDirectory
from autoquant.planner.plan import Plan
from autoquant.planner.source import find_source, local_directory
from autoquant.search_spaces.quantize import apply_choice
from autoquant.search_spaces.scheme import Scheme

COMPONENT = "transformer"
_CLASS = "FluxTransformer2DModel"


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file that was written and read back.

    Attributes:
        path: Where it is.
        stored_gb: Its bytes, in GiB.
        tensors: How many tensors it holds, by their type.
    """

    path: Path
    stored_gb: float
    tensors: Mapping[str, int]


@dataclass(frozen=True)
class _Stored:
    """A tensor as it is stored; ``kind`` is a GGML type."""

    data: NDArray[Any]
    kind: Any


def write_gguf(
    plan: Plan,
    directory: Path,
    *,
    source: str | None = None,
    force: bool = False,
    overwrite: bool = False,
) -> GgufFile:
    """Quantize the transformer as planned and write it as ``transformer-TYPE.gguf``.

    Where layers have different types, ``-mixed`` follows the one that most have.

    Args:
        plan: What to carry out; its transformer must be planned as ``gguf:…``.
        directory: Where the file goes, put in place once it was read back.
        source: Directory or hub id of the pipeline, if it has moved.
        force: Whether to go on although other versions are installed than were measured.
        overwrite: Whether to replace what ``directory`` holds.

    Raises:
        BackendUnavailable: The transformer is not planned as GGUF, or no single file of its kind
            is known.
        QuantizationMismatch: What was read back is not what was written. Nothing is left behind.
        InputError: ``directory`` holds files, versions differ, or the pipeline cannot be found.
    """
    if not force:
        require_same_versions(plan)
    require_no_adapters(plan)
    part = plan.components.get(COMPONENT)
    scheme = Scheme.parse(part.scheme if part is not None else "none")
    if part is None or scheme.backend != "gguf" or part.fuse_qkv:
        raise BackendUnavailable(
            f"A GGUF file needs a transformer planned as gguf:…, unfused; this one is {scheme}. "
            "Plan with --backend gguf, or use: autoquant emit PLAN --list"
        )
    with OutputDirectory(directory, overwrite=overwrite) as output:
        named = plan.pipeline.as_source() if source is None else find_source(source)
        loader = DirectoryLoader(local_directory(named))
        dtype = getattr(torch, plan.runtime.compute_dtype)
        module = loader.load(COMPONENT, dtype)
        if type(module).__name__ != _CLASS:
            raise BackendUnavailable(
                f"GGUF files are written for a {_CLASS}, this is a {type(module).__name__}: make "
                "one with the tool that reads it, like stable-diffusion.cpp's -M convert."
            )
        apply_choice(module, part.choice, dtype)
        tensors = _single_file({name: _stored(t) for name, t in module.state_dict().items()})
        mixed = "-mixed" if part.overrides else ""
        path = output.partial / f"{COMPONENT}-{scheme.precision}{mixed}.gguf"
        _write(path, tensors, plan)
        counts = _read_back(path, tensors)
        written = directory / path.name
        output.commit()
    return GgufFile(written, written.stat().st_size / GIB, counts)


def _stored(tensor: torch.Tensor) -> _Stored:
    import gguf

    kind = getattr(tensor, "quant_type", None)
    if kind is not None:
        return _Stored(tensor.detach().cpu().as_subclass(torch.Tensor).numpy(), kind)
    kept = tensor.detach().cpu().float().numpy()
    if tensor.ndim > 1 and tensor.dtype == torch.bfloat16:
        kind = gguf.GGMLQuantizationType.BF16
        return _Stored(gguf.quants.quantize(kept, kind), kind)
    # What is one-dimensional is small, and every reader takes it in float32.
    return _Stored(kept, gguf.GGMLQuantizationType.F32)


def _single_file(tensors: Mapping[str, _Stored]) -> dict[str, _Stored]:
    """The tensors under the names of single files.

    Raises:
        BackendUnavailable: Layers that are one tensor there are planned differently.
    """
    named = single_file_tensors(tensors)
    left = set(tensors) - {part for parts in named.values() for part in parts}
    if left:
        raise BackendUnavailable(
            f"Single files of {_CLASS} have no place for {', '.join(sorted(left)[:3])}."
        )
    return {native: _stacked(native, parts, tensors) for native, parts in named.items()}


def _stacked(native: str, parts: tuple[str, ...], tensors: Mapping[str, _Stored]) -> _Stored:
    kinds = {tensors[part].kind for part in parts}
    if len(kinds) > 1:
        raise BackendUnavailable(
            f"{', '.join(parts)} are one tensor in a single file, but the plan stores them as "
            f"{', '.join(sorted(kind.name for kind in kinds))}: keep all of them, or none."
        )
    rows = np.concatenate([tensors[part].data for part in parts])
    if native.startswith(HALVES_SWAPPED):
        rows = np.concatenate(np.split(rows, 2)[::-1])
    return _Stored(rows, kinds.pop())


def _write(path: Path, tensors: Mapping[str, _Stored], plan: Plan) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, "flux")
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_description(f"Made by autoquant {plan.autoquant} from {plan.pipeline.class_name}.")
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.data, raw_dtype=tensor.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _read_back(path: Path, tensors: Mapping[str, _Stored]) -> dict[str, int]:
    import gguf

    counts: dict[str, int] = {}
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for name, stored in tensors.items():
        read = found.get(name)
        is_same = (
            read is not None
            and read.tensor_type == stored.kind
            and np.array_equal(read.data.reshape(-1).view(np.uint8), _bytes(stored.data))
        )
        if not is_same:
            raise QuantizationMismatch(f"{path.name}: {name} is not what was written to it.")
        counts[stored.kind.name] = counts.get(stored.kind.name, 0) + 1
    return counts


def _bytes(data: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
