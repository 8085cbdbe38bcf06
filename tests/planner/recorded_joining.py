"""A process that joins a shared study with the recorded worker; it can be killed.

python -m tests.planner.recorded_joining STORAGE STUDY
"""

from __future__ import annotations

import sys

from autoquant.planner.joining import Sharing, join

PACE = {"heartbeat_s": 0.2, "grace_s": 2.0}


if __name__ == "__main__":
    result = join(
        Sharing(sys.argv[1], sys.argv[2], **PACE),
        cache=False,
        worker="tests.planner.recorded_worker",
    )
    print(len(result.trials))
