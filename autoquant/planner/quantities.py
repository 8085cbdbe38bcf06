"""Sizes and times as people read them. GB is GiB and MB is MiB."""

from __future__ import annotations


def gigabytes(gb: float) -> str:
    """``8.21 GB``, or ``7.93 MB`` under a tenth of a GB."""
    return f"{gb * 1024:.2f} MB" if gb < 0.1 else f"{gb:.2f} GB"


def seconds(duration: float) -> str:
    """``93 ms``, ``4.21 s`` or ``12 min 5 s``."""
    if duration < 1:
        return f"{duration * 1000:.0f} ms"
    if duration < 60:
        return f"{duration:.2f} s"
    return f"{int(duration // 60)} min {int(duration % 60)} s"


def loss_text(loss: float, *, is_estimate: bool = False) -> str:
    """``0.0312``, or ``≈0.0312`` where not every image was drawn."""
    return f"{'≈' if is_estimate else ''}{loss:.4g}"
