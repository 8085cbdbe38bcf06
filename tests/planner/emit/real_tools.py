"""Run the real tools, where they are, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def tool_directory(name: str) -> Path:
    """Where the tool's package or source is; the test is skipped where it is not installed."""
    folder = os.environ.get("AUTOQUANT_TOOLS")
    if folder is None or not (Path(folder) / name).is_dir():
        pytest.skip(f"{name} is not in AUTOQUANT_TOOLS: {HERE.name}/tools.txt says how to get it")
    return Path(folder).resolve() / name


def run_python(*arguments: object, path: Path | None = None, cwd: Path | None = None) -> str:
    """Standard output of a Python process with ``path`` on its import path."""
    environment = dict(os.environ, DO_NOT_TRACK="1", COLUMNS="200")
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=cwd,
    )
    assert done.stdout, done.stderr
    return done.stdout


def probe(name: str, *arguments: object, path: Path | None = None, cwd: Path | None = None) -> Any:
    """What the probe of that name prints; tools log to standard output too."""
    printed = run_python(HERE / "probes" / f"{name}.py", *arguments, path=path, cwd=cwd)
    return json.loads(next(line for line in printed.splitlines() if line.startswith("{")))
