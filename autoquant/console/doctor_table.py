"""What works on this machine, as a table for people."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autoquant.planner.doctor import Diagnosis, Finding

_STYLES = {"works": "green", "fails": "red", "not installed": "dim"}


def doctor_table(diagnosis: Diagnosis) -> RenderableType:
    """One row a scheme, and what it was tried on."""
    device = diagnosis.device
    versions = ", ".join(f"{name} {version}" for name, version in diagnosis.versions.items())
    table = Table(header_style="bold", box=None, pad_edge=False)
    table.add_column("scheme", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("bits/weight", justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for finding in diagnosis.findings:
        table.add_row(
            finding.scheme,
            Text(finding.state, style=_STYLES[finding.state]),
            "" if finding.bits is None else f"{finding.bits:.2f}",
            Text(_remark(finding)),  # brackets in it are no markup
        )
    return Group(
        Text(f"{device.name} ({device.kind}, {device.memory_gb:g} GB)", style="bold"),
        Text(versions, style="dim"),
        Text(),
        table,
        Text(),
        Text(_summary(diagnosis)),
    )


def _remark(finding: Finding) -> str:
    return "; ".join(part for part in (finding.reason, finding.note) if part)


def _summary(diagnosis: Diagnosis) -> str:
    counts = dict.fromkeys(_STYLES, 0)
    for finding in diagnosis.findings:
        counts[finding.state] += 1
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count) + "."
