"""What the command's exit status says."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """What the command's exit status says."""

    DONE = 0
    FAULT = 1
    WRONG_INPUT = 2
    INFEASIBLE = 3
    INTERRUPTED = 4
