"""The weights of a CLIP model: on this machine, or fetched without minutes of retries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from autoquant.errors import MetricUnavailable
from autoquant.metrics.download import require_reachable

LOCAL = "local-dir:"
_SAFE_FILE = "open_clip_model.safetensors"
_FILES = (_SAFE_FILE, "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class ClipSource:
    """How open_clip is to make a model without asking the network.

    Attributes:
        model_name: Built-in architecture, or ``local-dir:PATH``.
        weights: The checkpoint file.
        identity: What makes two scores comparable; it names no place on this machine.
        overrides: How images were prepared in training, and the activation; a checkpoint's path
            alone does not tell open_clip.
    """

    model_name: str
    weights: Path
    identity: str
    overrides: dict[str, Any] = field(default_factory=dict)


def find_clip(model: str, allow_download: bool) -> ClipSource:
    """Find the weights of ``MODEL:TAG`` or ``local-dir:PATH``.

    Raises:
        MetricUnavailable: The model is unknown, or its weights are not here and may not or cannot
            be fetched.
    """
    if model.startswith(LOCAL):
        return _local(Path(model.removeprefix(LOCAL)))
    name, _, tag = model.partition(":")
    config = open_clip.get_pretrained_cfg(name, tag)
    repository = str(config.get("hf_hub", "")).rstrip("/")
    if not repository:
        raise MetricUnavailable(
            f"CLIP model {model!r} is not 'local-dir:PATH' nor one of open_clip's MODEL:TAG that "
            "lie on the Hugging Face hub (see open_clip.list_pretrained())."
        )
    _require_own_text_tower(model, (open_clip.get_model_config(name) or {}).get("text_cfg", {}))
    weights = _cached(repository) or _fetched(repository, model, allow_download)
    overrides = {
        "image_mean": config.get("mean"),
        "image_std": config.get("std"),
        "image_interpolation": config.get("interpolation"),
        "image_resize_mode": config.get("resize_mode"),
        "force_quick_gelu": bool(config.get("quick_gelu", False)),
    }
    return ClipSource(name, weights, model, overrides)


def _local(folder: Path) -> ClipSource:
    config = folder / "open_clip_config.json"
    if not config.is_file():
        raise MetricUnavailable(
            f"{folder} is no open_clip folder: it has no {config.name}; it needs that file and "
            f"{_SAFE_FILE}."
        )
    try:
        text_config = json.loads(config.read_text(encoding="utf-8"))["model_cfg"]["text_cfg"]
    except (ValueError, KeyError, TypeError) as error:
        raise MetricUnavailable(f"{config} has no model_cfg with a text_cfg: {error!r}.") from error
    # A tokenizer of transformers' is read from the folder itself.
    _require_own_text_tower(str(config), {**text_config, "hf_tokenizer_name": None})
    # open_clip prefers this file to any other in the folder, and it cannot hold code.
    weights = folder / _SAFE_FILE
    if not weights.is_file():
        raise MetricUnavailable(f"{folder} has no {_SAFE_FILE}; save the weights under that name.")
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ClipSource(f"{LOCAL}{folder}", weights, f"{folder.name} {digest[:8]}")


def _require_own_text_tower(model: str, text_config: Mapping[str, Any]) -> None:
    for key in ("hf_model_name", "hf_tokenizer_name"):
        if text_config.get(key):
            raise MetricUnavailable(
                f"CLIP {model} takes its text part from {text_config[key]!r} on the hub each time; "
                "use a model whose text part open_clip builds itself, such as ViT-B-32."
            )


def _cached(repository: str) -> Path | None:
    for name in _FILES:
        found = huggingface_hub.try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return Path(found)
    return None


def _fetched(repository: str, model: str, allow_download: bool) -> Path:
    way_out = (
        f"run 'hf download {repository} {_SAFE_FILE}' where there is a network, or name a folder "
        "with clip_model='local-dir:PATH'."
    )
    if not allow_download or huggingface_hub.constants.HF_HUB_OFFLINE:
        why = "HF_HUB_OFFLINE is set" if allow_download else "downloads are not allowed"
        raise MetricUnavailable(
            f"CLIP {model} is not in the Hugging Face cache and {why}; {way_out}"
        )
    require_reachable(huggingface_hub.constants.ENDPOINT, way_out)
    for name in _FILES:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, name))
        except LocalEntryNotFoundError as error:  # an EntryNotFoundError, but of the connection
            raise MetricUnavailable(_failed(model, error, way_out)) from error
        except EntryNotFoundError:
            continue  # older repositories have the second file only
        except OSError as error:
            raise MetricUnavailable(_failed(model, error, way_out)) from error
    raise MetricUnavailable(f"{repository} has none of {', '.join(_FILES)}; {way_out}")


def _failed(model: str, error: Exception, way_out: str) -> str:
    return f"CLIP {model} could not be fetched ({error}); {way_out}"
