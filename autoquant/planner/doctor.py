"""Try every backend and precision on this machine, each in a process of its own.

A library that crashes, hangs or computes nonsense costs one line of the answer and nothing else.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from autoquant.metrics.device import (
    DeviceFingerprint,
    compute_capability,
    fingerprint,
    package_versions,
    resolve_device,
)
from autoquant.planner.doctor_probe import Probed
from autoquant.search_spaces import backends as registry
from autoquant.search_spaces.backends.base import NotInstalled
from autoquant.search_spaces.backends.checkpoint import method_unavailable
from autoquant.search_spaces.scheme import CHECKPOINT, Scheme
from autoquant.search_spaces.usable import forbidden

State = Literal["works", "fails", "not installed"]

# Of what was quantized before, those that doctor_folders.py makes a folder of.
METHODS_MADE_HERE = ("auto-round", "nunchaku_lite")

# quanto compiles its packed kernels on first use, which takes a minute on a slow machine.
DEFAULT_TIMEOUT_S = 300.0


class Finding(BaseModel):
    """What became of one scheme.

    Attributes:
        scheme: Like ``torchao:int8wo``.
        state: Whether it works.
        reason: Why it fails, or the command that installs it; empty if it works.
        note: Where the trial and what autoquant believes differ.
        bits: Bits per weight that the probe's layer really holds, scales included.
        error: Relative error of the probe's output, from random weights: it tells right from
            wrong, not good from better.
        seconds: How long the process ran.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    scheme: str
    state: State
    reason: str = ""
    note: str = ""
    bits: float | None = None
    error: float | None = None
    seconds: float = 0.0


class Diagnosis(BaseModel):
    """What works on one device, with these versions."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    device: DeviceFingerprint
    versions: dict[str, str]
    findings: tuple[Finding, ...]


def diagnose(
    device: str | None = None,
    backends: Sequence[str] | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    on_finding: Callable[[Finding, int], None] = lambda finding, total: None,
) -> Diagnosis:
    """Try every precision of every backend, installed or brought by another package.

    Args:
        device: Where; by default the accelerator if there is one.
        backends: Names of the backends to try; None tries all.
        timeout_s: Seconds after which a trial is ended.
        on_finding: Called after each trial, with the number of all trials.

    Raises:
        InputError: The device is not on this machine, or a backend is unknown.
    """
    resolved = resolve_device(device)
    capability = compute_capability(resolved)
    schemes = list(_schemes(backends))
    findings = []
    for backend, precision in schemes:
        scheme = f"{backend}:{precision}"
        reason = _unavailable(backend, precision, resolved.type)
        if isinstance(reason, NotInstalled):
            finding = Finding(scheme=scheme, state="not installed", reason=reason)
        else:
            reason = reason or _forbidden(scheme, resolved.type, capability)
            finding = _compared(try_scheme(scheme, str(resolved), timeout_s), reason)
        findings.append(finding)
        on_finding(finding, len(schemes))
    return Diagnosis(
        device=fingerprint(resolved), versions=package_versions(), findings=tuple(findings)
    )


def try_scheme(scheme: str, device: str, timeout_s: float) -> Finding:
    """Try one scheme in a process of its own."""
    started = time.monotonic()
    command = [sys.executable, "-m", "autoquant.planner.doctor_probe", scheme, device]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        _end(process)
        return Finding(
            scheme=scheme,
            state="fails",
            reason=f"gave no answer within {timeout_s:g} s",
            seconds=time.monotonic() - started,
        )
    finding = _read(scheme, process.returncode, out, err)
    return finding.model_copy(update={"seconds": time.monotonic() - started})


def _schemes(names: Sequence[str] | None) -> Iterator[tuple[str, str]]:
    for name in registry.backends() if names is None else names:
        for precision in registry.backend(name).precisions:
            yield name, precision
        if name == CHECKPOINT:
            for method in METHODS_MADE_HERE:
                yield name, method


def _forbidden(scheme: str, device_type: str, capability: tuple[int, int] | None) -> str | None:
    """What the table says; of a method, what it says of four bits, which the probe's folder has."""
    name = f"{scheme}:int4" if Scheme.parse(scheme).backend == CHECKPOINT else scheme
    return forbidden(name, device_type, capability=capability)


def _unavailable(backend: str, precision: str, device_type: str) -> str | None:
    if backend == CHECKPOINT:
        return method_unavailable(precision)
    return registry.backend(backend).unavailable(precision, device_type)


def _read(scheme: str, status: int, out: str, err: str) -> Finding:
    try:
        probed = Probed.model_validate_json(out.splitlines()[-1] if out.strip() else "")
    except ValidationError:
        return Finding(scheme=scheme, state="fails", reason=_how_it_ended(status, err))
    if probed.failure is not None:
        return Finding(scheme=scheme, state="fails", reason=probed.failure)
    return Finding(scheme=scheme, state="works", bits=probed.bits, error=probed.error)


def _how_it_ended(status: int, err: str) -> str:
    if status < 0:
        return f"its process was killed by {signal.Signals(-status).name}"
    last = next((line for line in reversed(err.splitlines()) if line.strip()), "it said nothing")
    return f"its process ended with status {status}: {last.strip()}"


def _compared(tried: Finding, believed: str | None) -> Finding:
    """Put what autoquant believes beside what was seen."""
    if believed is None:
        return tried
    if tried.state == "works":
        return tried.model_copy(update={"note": f"not searched here all the same: {believed}"})
    return tried.model_copy(update={"reason": believed, "note": f"as tried: {tried.reason}"})


def _end(process: subprocess.Popen[str]) -> None:
    """End the trial with all that it started, such as a compiler."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.communicate()
