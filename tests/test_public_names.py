from __future__ import annotations

import subprocess
import sys

import autoquant


def test_every_public_name_can_be_had() -> None:
    assert sorted(autoquant.__all__) == autoquant.__all__
    for name in autoquant.__all__:
        assert getattr(autoquant, name).__name__ == name


def test_the_package_is_light_and_what_decides_imports_no_torch() -> None:
    modules = [
        "autoquant",
        "autoquant.errors",
        "autoquant.planner.plan",
        "autoquant.planner.search",
        "autoquant.planner.selection",
        "autoquant.planner.source",
        "autoquant.planner.workload",
    ]
    probe = (
        f"import sys, importlib\nfor name in {modules!r}: importlib.import_module(name)\n"
        "sys.exit('torch is loaded' if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
