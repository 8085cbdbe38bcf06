"""The backbone weights of LPIPS: where they lie, that they are the right ones, safely loaded."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torchvision.models import AlexNet_Weights

from autoquant.errors import MetricUnavailable
from autoquant.metrics.download import require_reachable

_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_FORBID = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def alexnet_file(allow_download: bool) -> Path:
    """Find torchvision's AlexNet weights in torch's hub folder, or fetch them there.

    Raises:
        MetricUnavailable: They are not there and may not or cannot be fetched, or the file is not
            the one that its name says.
    """
    url = str(AlexNet_Weights.DEFAULT.url)
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        way_out = f"put {url} into {path.parent} (or set TORCH_HOME to a folder that has it)."
        if not allow_download:
            raise MetricUnavailable(
                f"LPIPS needs {path}, which is not there; allow downloads, or {way_out}"
            )
        _download(url, path, way_out)
    require_own_hash(path)
    return path


def _download(url: str, path: Path, way_out: str) -> None:
    require_reachable(url, way_out)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=_hash_in_name(path))
    except (OSError, RuntimeError) as error:  # the second: what came has another hash
        raise MetricUnavailable(f"{url} could not be fetched ({error}); {way_out}") from error


def require_own_hash(path: Path) -> None:
    """Compare the SHA-256 of a file with the prefix in its name, as ``name-7be5be79.pth`` has one.

    Raises:
        MetricUnavailable: The file is another one, or damaged.
    """
    expected = _hash_in_name(path)
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if not actual.startswith(expected):
        raise MetricUnavailable(
            f"{path} is damaged or not what its name says: its SHA-256 begins with "
            f"{actual[: len(expected)]}, not {expected}. Delete it and fetch it again."
        )


@contextmanager
def weights_only_loading() -> Iterator[None]:
    """Make every ``torch.load`` inside refuse what is not plain tensors.

    torchvision loads checkpoints with ``weights_only=False``, which runs code that a file holds.
    torch reads these two variables at each load; both set at once is an error, so one is taken out.
    """
    before = {name: os.environ.pop(name, None) for name in (_FORCE, _FORBID)}
    os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        del os.environ[_FORCE]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _hash_in_name(path: Path) -> str:
    match = re.search(r"-([0-9a-f]{8,})\.", path.name)
    if match is None:
        raise MetricUnavailable(f"{path} must carry the start of its SHA-256 in its name.")
    return match.group(1)
