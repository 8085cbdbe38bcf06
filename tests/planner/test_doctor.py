from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from autoquant.console.doctor_table import doctor_table
from autoquant.errors import InputError
from autoquant.planner import doctor, doctor_probe
from autoquant.planner.doctor import Diagnosis, Finding, diagnose, try_scheme
from autoquant.search_spaces.backends.layerwise import Layerwise
from tests.in_process import Command

# A backend of another package that breaks in every way there is.
CULPRIT = """
    import os, signal, time

    from autoquant.search_spaces.backends.base import Recipe

    class Culprit:
        name = "culprit"
        precisions = {"killed": 8.0, "nan": 8.0, "lazy": 8.0, "raises": 8.0, "hangs": 8.0}

        def unavailable(self, precision, device_type):
            return None

        def quantizable_layers(self, module, precision):
            return ("0",)

        def recipe(self, precision):
            return Recipe(globals()[precision])

    def killed(module, layers):
        os.kill(os.getpid(), signal.SIGSEGV)

    def nan(module, layers):
        module.get_submodule("0").weight.data.fill_(float("nan"))

    def lazy(module, layers):
        pass

    def raises(module, layers):
        raise RuntimeError("no kernel\\nfor this card")

    def hangs(module, layers):
        time.sleep(600)
"""


@pytest.fixture
def culprit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "culprit.py").write_text(dedent(CULPRIT))
    metadata = tmp_path / "culprit-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: culprit\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[autoquant.backends]\nculprit = culprit:Culprit\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path.cwd())]))
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("culprit")
def test_a_backend_that_ends_its_process_is_one_line() -> None:
    finding = try_scheme("culprit:killed", "cpu", timeout_s=120)
    assert finding.state == "fails"
    assert finding.reason == "its process was killed by SIGSEGV"


@pytest.mark.usefixtures("culprit")
@pytest.mark.parametrize(
    ("precision", "reason"),
    [
        ("nan", "32768 of 32768 outputs are not finite"),
        ("lazy", "it saves nothing: 16.00 bits a weight"),
        ("raises", "RuntimeError: no kernel for this card"),
    ],
)
def test_whatever_else_a_backend_does_is_one_line(
    precision: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["doctor_probe", f"culprit:{precision}", "cpu"])
    doctor_probe.main()
    last = capsys.readouterr().out.splitlines()[-1]
    assert doctor_probe.Probed.model_validate_json(last).failure == reason


@pytest.mark.usefixtures("culprit")
def test_a_hanging_backend_is_ended() -> None:
    finding = try_scheme("culprit:hangs", "cpu", timeout_s=5)
    assert finding.state == "fails"
    assert finding.reason == "gave no answer within 5 s"
    assert 5 <= finding.seconds < 30


def test_the_command_ends_well_and_says_what_works(
    autoquant_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Layerwise, "precisions", {"float8_e5m2": 8.0})
    done = autoquant_command("doctor", "--backend", "layerwise", "--json")
    assert done.returncode == 0, done.stderr
    diagnosis = Diagnosis.model_validate(json.loads(done.stdout))
    if diagnosis.device.kind == "cpu":
        assert [finding.state for finding in diagnosis.findings] == ["works"]
        assert [finding.bits for finding in diagnosis.findings] == [8.0]
    assert "[1/1] layerwise:float8_e5m2" in done.stderr


def works(scheme: str, device: str, timeout_s: float) -> Finding:
    return Finding(scheme=scheme, state="works", bits=8.0)


def fails(scheme: str, device: str, timeout_s: float) -> Finding:
    return Finding(scheme=scheme, state="fails", reason="OSError: no driver")


def test_what_is_missing_comes_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    findings = diagnose("cpu", ["gguf"]).findings
    assert {finding.state for finding in findings} == {"not installed"}
    assert findings[0].reason.endswith('pip install "diffusers-autoquant[gguf]"')


def test_the_table_shows_the_command_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        console.print(doctor_table(diagnose("cpu", ["checkpoint", "auto-round"])))
    lines = {line.split()[0]: line for line in capture.get().splitlines() if ":" in line}
    for scheme, extra in [
        ("checkpoint:auto-round", "auto-round"),
        ("checkpoint:nunchaku_lite", "nunchaku"),
        ("auto-round:int4", "auto-round"),
    ]:
        assert f'pip install "diffusers-autoquant[{extra}]"' in lines[scheme]


def test_a_device_that_nunchaku_has_no_kernels_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.16.1")
    monkeypatch.setenv("DIFFUSERS_TRUST_REMOTE_KERNELS", "true")
    monkeypatch.setattr(doctor, "try_scheme", fails)
    findings = {finding.scheme: finding for finding in diagnose("cpu", ["checkpoint"]).findings}
    assert "for NVIDIA cards" in findings["checkpoint:nunchaku_lite"].reason
    assert findings["checkpoint:auto-round"].reason == "OSError: no driver"


@pytest.mark.parametrize(
    ("trial", "state", "note"),
    [(works, "works", "not searched here all the same"), (fails, "fails", "as tried: OSError")],
)
def test_the_trial_judges_what_autoquant_believes(
    monkeypatch: pytest.MonkeyPatch, trial: object, state: str, note: str
) -> None:
    monkeypatch.setattr(doctor, "try_scheme", trial)
    findings = {finding.scheme: finding for finding in diagnose("cpu", ["torchao"]).findings}
    int4 = findings["torchao:int4wo"]
    assert int4.state == state
    assert note in int4.note
    assert "kernel on cuda only" in int4.reason + int4.note
    assert not findings["torchao:int8wo"].note


def test_the_table_holds_every_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    monkeypatch.setattr(doctor, "try_scheme", works)
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        console.print(doctor_table(diagnose("cpu", ["quanto", "gguf"])))
    text = capture.get()
    assert all(word in text for word in ("quanto:int2", "gguf:Q5_1", "9 works."))


def test_an_unknown_backend_is_an_error() -> None:
    with pytest.raises(InputError, match="There is no backend 'qanto'"):
        diagnose("cpu", ["qanto"])
