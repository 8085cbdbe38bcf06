"""What the documentation points at is there, and the pages build."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
# Files of this project as the pages name them, in backticks or in commands.
_FILE = re.compile(r"(?<![\w/.])((?:autoquant|benchmarks|examples|tests)/[\w./-]+\.\w+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = [name for name in _LINK.findall(text) if not (page.parent / name).exists()]
    missing += [name for name in _FILE.findall(text) if not (ROOT / name).exists()]
    assert missing == []


def test_every_page_is_in_the_navigation() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    named = set(re.findall(r"[\w-]+\.md", str(settings["nav"])))
    assert named == {page.name for page in (ROOT / "docs").glob("*.md")}


def test_everything_in_the_reference_is_public_and_there() -> None:
    text = (ROOT / "docs" / "reference.md").read_text()
    for path in re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE):
        home, _, name = path.rpartition(".")
        found = getattr(importlib.import_module(home), name, None)
        assert found is not None or importlib.import_module(path), path
        assert (found or importlib.import_module(path)).__doc__, path


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    if shutil.which("mkdocs", path=Path(sys.executable).parent) is None:
        pytest.skip("needs mkdocs: pip install -e '.[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "site" / "reference" / "index.html").read_text()
    assert "Peak memory of a call, weights included, in GiB." in reference
