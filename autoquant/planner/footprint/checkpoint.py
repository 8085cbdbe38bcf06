"""A component's shapes from its folder of safetensors files: one file, or shards and an index."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from autoquant.errors import InputError, UnsupportedPipeline
from autoquant.planner.footprint.headers import read_header
from autoquant.planner.footprint.repository import Repository, read_json
from autoquant.planner.footprint.shapes import ComponentShapes, TensorShape

# The names that diffusers and transformers save under (diffusers utils/constants.py, transformers
# utils/__init__.py); a variant stands before the suffix of the file and after that of the index.
_STEMS = ("diffusion_pytorch_model", "model")
_SHARD = re.compile(r"[\w.\-]+\.safetensors")
_VARIANT = re.compile(rf"(?:{'|'.join(_STEMS)})\.([\w\-]+?)(?:-\d+-of-\d+)?\.safetensors")
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".msgpack", ".h5")


def read_component(
    repository: Repository, name: str, library: str, class_name: str, variant: str | None
) -> ComponentShapes | None:
    """The shapes of the component in folder ``name``; None if it holds no weights.

    Raises:
        InputError: A header, index or config is damaged.
        UnsupportedPipeline: There are weights, but none as safetensors.
    """
    files = _files_in(repository, name)
    if f"{name}/config.json" not in repository.sizes or not _weight_files(files):
        return None
    return ComponentShapes(
        name=name,
        library=library,
        class_name=class_name,
        config=read_json(repository, f"{name}/config.json"),
        tensors=_read_tensors(repository, name, variant),
    )


def read_file(repository: Repository, path: str) -> dict[str, TensorShape]:
    """The tensors of one safetensors file.

    Raises:
        InputError: The header is damaged.
    """
    return read_header(
        f"{repository.name}: {path}",
        repository.sizes[path],
        lambda offset, length: repository.read(path, offset, length),
    )


def _read_tensors(
    repository: Repository, folder: str, variant: str | None
) -> dict[str, TensorShape]:
    files = _files_in(repository, folder)
    for infix in (f".{variant}", "") if variant else ("",):
        for stem in _STEMS:
            index = f"{stem}.safetensors.index{infix}.json"
            if index in files:
                return _read_shards(repository, folder, index)
            if f"{stem}{infix}.safetensors" in files:
                return read_file(repository, f"{folder}/{stem}{infix}.safetensors")
    raise _no_such_weights(repository, folder, files)


def _read_shards(repository: Repository, folder: str, index: str) -> dict[str, TensorShape]:
    path = f"{folder}/{index}"
    weight_map = read_json(repository, path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{repository.name}: {path} has no weight_map; fetch it again.")
    shards: dict[str, None] = {}
    for shard in weight_map.values():
        if not isinstance(shard, str) or not _SHARD.fullmatch(shard):
            raise InputError(f"{repository.name}: {path} names the shard {str(shard)[:60]!r}.")
        if f"{folder}/{shard}" not in repository.sizes:
            raise InputError(
                f"{repository.name} has no {folder}/{shard}, which {path} names; fetch it again."
            )
        shards[shard] = None
    tensors: dict[str, TensorShape] = {}
    for shard in shards:
        tensors.update(read_file(repository, f"{folder}/{shard}"))
    missing = [name for name in weight_map if name not in tensors]
    if missing:
        raise InputError(
            f"{repository.name}: {path} names {len(missing)} tensors that no shard holds, first "
            f"{missing[0][:60]!r}; fetch it again."
        )
    return tensors


def _no_such_weights(
    repository: Repository, folder: str, files: Iterable[str]
) -> UnsupportedPipeline:
    place = f"{repository.name}: {folder}"
    variants = sorted({match[1] for file in files if (match := _VARIANT.fullmatch(file))})
    if variants:
        return UnsupportedPipeline(
            f"{place} has only the variants {', '.join(variants)}: add --variant {variants[0]}."
        )
    return UnsupportedPipeline(
        f"{place} has no {_STEMS[0]}.safetensors or {_STEMS[1]}.safetensors, only "
        f"{', '.join(sorted(_weight_files(files))[:3])}. Pickles can run code when they are "
        "opened, so they are not; convert them to safetensors."
    )


def _files_in(repository: Repository, folder: str) -> set[str]:
    return {
        path.name
        for path in map(PurePosixPath, repository.sizes)
        if path.parent.as_posix() == folder
    }


def _weight_files(files: Iterable[str]) -> set[str]:
    return {file for file in files if file.endswith((".safetensors", *_PICKLES))}
