"""What a pipeline directory holds, as one hash: equal content gives equal measurements."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from autoquant.files import write_text

# The hub's cache names a file by the sha256 of a large file, or by git's own hash of a small one.
_HUB_BLOB = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BLOBS = "blobs"
_SNAPSHOTS = "snapshots"


class KnownHashes:
    """Hashes of local files, remembered by path, size and time of last change.

    A file that cannot be read or is damaged counts as empty: the hashes are computed again.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, str] = {}
        if path is not None:
            try:
                entries = json.loads(path.read_text(encoding="utf-8"))
                self._known = {str(key): str(value) for key, value in entries.items()}
            except (OSError, ValueError, AttributeError):
                self._known = {}
        self._is_changed = False

    def of(self, file: Path) -> str:
        """The sha256 of a file's content, or the name that the hub's cache gave it."""
        resolved = file.resolve()
        if resolved.parent.name == _BLOBS and _HUB_BLOB.fullmatch(resolved.name):
            return resolved.name
        status = resolved.stat()
        mark = f"{resolved}\0{status.st_size}\0{status.st_mtime_ns}"
        key = hashlib.sha256(mark.encode()).hexdigest()
        if key not in self._known:
            with resolved.open("rb") as content:
                self._known[key] = hashlib.file_digest(content, "sha256").hexdigest()
            self._is_changed = True
        return self._known[key]

    def save(self) -> None:
        """Write what was learnt, if anything."""
        if self._path is not None and self._is_changed:
            write_text(self._path, json.dumps(self._known))


def content_hash(directory: Path, known: KnownHashes) -> str:
    """Hash every file of a pipeline directory; a hub snapshot is named by its commit already.

    The commit covers the sha256 of every weight file, fetched yet or not.
    """
    if directory.parent.name == _SNAPSHOTS and _COMMIT.fullmatch(directory.name):
        return f"commit {directory.name}"
    digest = hashlib.sha256()
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):
        inside = file.relative_to(directory)
        if not any(part.startswith(".") for part in inside.parts):
            digest.update(f"{inside}\0{known.of(file)}\n".encode())
    return f"sha256 {digest.hexdigest()}"
