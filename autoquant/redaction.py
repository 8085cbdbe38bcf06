"""Take what names a user out of a text that is kept or shown: the home directory, and tokens."""

from __future__ import annotations

import re
from pathlib import Path

# The prefixes that the hub and GitHub give their access tokens.
_TOKEN = re.compile(r"\b(?:hf_|gh[opsu]_|github_pat_)\w{16,}")


def redacted(text: str) -> str:
    """``text`` with ``~`` for the home directory and ``***`` for access tokens."""
    home = str(Path.home())
    if len(home) > 1:
        text = text.replace(home, "~")
    return _TOKEN.sub("***", text)
