"""docs/backends.md names every scheme, and no test that is not there."""

from __future__ import annotations

import re
from pathlib import Path

from autoquant.search_spaces import backends

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")


def test_every_scheme_is_on_the_page() -> None:
    for name, owner in backends.backends().items():
        rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}:")]
        for precision in owner.precisions:
            assert any(f":{precision}`" in row for row in rows), f"{name}:{precision}"


def test_every_test_on_the_page_exists() -> None:
    named = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", PAGE)
    assert len(named) > 10
    for file, function in named:
        texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob(file)]
        assert any(f"def {function}" in text for text in texts), (file, function)
