"""Commands and emitted scripts, run in this process: another costs seconds of importing."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest

from autoquant import cli


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Done]
"""From the command line's arguments to its exit status and what it printed."""

Script = Callable[[Path], str]
"""From an emitted script to what it printed."""


@pytest.fixture
def autoquant_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """``autoquant``, in the directory ``tmp_path``."""

    def run(*arguments: object) -> Done:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["autoquant", *map(str, arguments)])
        capsys.readouterr()
        # A process of its own would set up the libraries for itself alone.
        with pytest.raises(SystemExit) as left, mock.patch.dict(os.environ):
            cli.main()
        assert isinstance(left.value.code, int)
        return Done(left.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def run_script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Script:
    """An emitted script, in its own directory, where no ``autoquant`` can be imported."""

    def run(script: Path) -> str:
        capsys.readouterr()
        with monkeypatch.context() as alone:
            alone.chdir(script.parent)
            alone.setattr(sys, "argv", [script.name])
            alone.setitem(sys.modules, "autoquant", None)
            runpy.run_path(script.name, run_name="__main__")
        return capsys.readouterr().out

    return run
