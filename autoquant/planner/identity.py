"""What must be equal for one run's measurements to stand for another's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from autoquant import __version__
from autoquant.metrics.device import hardware, package_versions
from autoquant.planner.checkpoints import NamedCheckpoint
from autoquant.planner.content import KnownHashes, content_hash
from autoquant.planner.loras import NamedLora
from autoquant.planner.request import Request
from autoquant.planner.source import find_source, local_directory
from autoquant.redaction import redacted

# Where the model lies and how it was fetched changes nothing that its content does not tell.
_SAID_BY_CONTENT = {"pipeline", "revision", "download", "trust_remote_code"}
_PARTS = {
    "workload": "workload",
    "metric": "metric",
    "clip_model": "metric",
    "variant": "model",
    "gguf_files": "model",
    "checkpoints": "model",
    "loras": "model",
    "device": "device",
    "compute_dtype": "device",
}


class Identity(BaseModel):
    """A run's model, workload, metric, device, versions and space, as plain values.

    Attributes:
        parts: For each part of the identity its facts, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    parts: dict[str, dict[str, Any]]

    def key(self, *, without: tuple[str, ...] = ()) -> str:
        """A text that is equal for equal identities, some parts left aside."""
        kept = {name: facts for name, facts in self.parts.items() if name not in without}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    def differences(self, now: Identity) -> list[str]:
        """Each fact that is another one now, as ``torch 2.9 then, 2.14 now``."""
        return [
            f"{part} {name}: {_short(before)} then, {_short(after)} now"
            for part, name, before, after in _pairs(self.parts, now.parts)
            if before != after
        ]


def identify(request: Request, known: KnownHashes) -> Identity | None:
    """The identity of what ``request`` asks for; a pipeline in memory has none.

    Nothing here starts an accelerator or imports torch.

    Raises:
        InputError: The model cannot be found.
    """
    if not isinstance(request.pipeline, str):
        return None
    source = find_source(request.pipeline, revision=request.revision, variant=request.variant)
    facts = request.model_dump(mode="json", exclude=_SAID_BY_CONTENT)
    parts: dict[str, dict[str, Any]] = {
        "model": {"content": content_hash(local_directory(source, download=False), known)},
        "workload": {},
        "metric": {},
        "device": dict(hardware()),
        "versions": {"autoquant": __version__, **package_versions()},
        "request": {},
    }
    for name, value in facts.items():
        if name == "space_file":
            value = None if value is None else known.of(Path(value))
        if name == "gguf_files":
            value = [known.of(Path(file).expanduser()) for file in value]
        if name == "loras":
            loras = map(NamedLora.parse, value)
            value = [[it.name, known.of(it.file), it.scale] for it in loras]
        if name == "checkpoints":
            named = map(NamedCheckpoint.parse, value)
            value = [[it.component, content_hash(it.folder, known)] for it in named]
        parts[_PARTS.get(name, "request")][name] = value
    parts["workload"] = parts["workload"]["workload"]
    return Identity(parts=json.loads(redacted(json.dumps(parts))))


def _pairs(
    then: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]
) -> Iterator[tuple[str, str, Any, Any]]:
    for part in {**then, **now}:
        before, after = then.get(part, {}), now.get(part, {})
        for name in {**before, **after}:
            yield part, name, before.get(name), after.get(name)


def _short(value: Any) -> str:
    text = "nothing" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:40]}…"
