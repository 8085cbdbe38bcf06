from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

from autoquant.errors import BackendUnavailable
from autoquant.search_spaces import backends
from autoquant.search_spaces.backends.bitsandbytes import Bitsandbytes

HEAVY = (
    "{'torch', 'diffusers', 'transformers', 'bitsandbytes', 'torchao', 'optimum', 'gguf', 'sdnq'}"
)


class Brought(Bitsandbytes):
    name = "brought"


def entry_point(attribute):
    return importlib.metadata.EntryPoint(
        "brought", f"{__name__}:{attribute}", backends.ENTRY_POINTS
    )


@pytest.fixture
def bring(monkeypatch):
    def install(loaded):
        point = entry_point("Brought")
        monkeypatch.setattr(type(point), "load", lambda self: loaded())
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: (point,))

    return install


def test_built_in_backends_are_known():
    assert list(backends.backends()) == [
        "bitsandbytes",
        "torchao",
        "quanto",
        "gguf",
        "gguf-file",
        "checkpoint",
        "auto-round",
        "sdnq",
        "modelopt",
        "layerwise",
    ]


def test_unknown_name_gets_the_nearest_ones():
    with pytest.raises(BackendUnavailable, match=r"'torcha'.*did you mean torchao\?.*quanto"):
        backends.backend("torcha")


def test_unknown_precision_gets_the_known_ones():
    with pytest.raises(BackendUnavailable, match=r"'torchao' has no precision 'int3'.*int8wo"):
        backends.backend("torchao").recipe("int3")


def test_a_backend_of_another_package_is_found(bring):
    bring(lambda: Brought)
    assert backends.backend("brought").name == "brought"


def test_a_name_in_use_is_refused(bring):
    bring(lambda: Bitsandbytes)
    with pytest.raises(BackendUnavailable, match=r"'bitsandbytes'.*taken already"):
        backends.backends()


def test_a_broken_backend_of_another_package_is_named(bring):
    def fail():
        raise ImportError("no module named brought_kernels")

    bring(fail)
    with pytest.raises(BackendUnavailable, match=r"brought_kernels.*uninstall"):
        backends.backends()


def test_missing_and_old_libraries_are_told_with_the_fix(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    for name in ("bitsandbytes", "torchao", "quanto", "gguf", "sdnq"):
        owner = backends.backend(name)
        for precision in owner.precisions:
            reason = owner.unavailable(precision, "cpu")
            assert reason.endswith(f'pip install "diffusers-autoquant[{name}]"')
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0.9")
    assert "0.0.9 is older than" in backends.backend("torchao").unavailable("int8wo", "cpu")


def test_looking_at_backends_imports_nothing_heavy():
    program = (
        "import sys\n"
        "import autoquant.search_spaces.space, autoquant.search_spaces.quantize\n"
        "from autoquant.search_spaces import backends\n"
        "for owner in backends.backends().values():\n"
        "    for precision in owner.precisions:\n"
        "        owner.unavailable(precision, 'cuda')\n"
        "        owner.recipe(precision)\n"
        f"print(*({{name.split('.')[0] for name in sys.modules}} & {HEAVY}))\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == ""
