"""Where the wall seconds of one `autoquant suggest` went, from the log that it wrote.

autoquant suggest demo --vram 0.006 --latency 5 --out plan
python benchmarks/time_spent.py plan
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

# The process that measures says when it begins one of these.
PHASES = {
    "open": "start the measuring process, read the pipeline",
    "load": "load and quantize",
    "warm up": "first calls, counted",
    "draw": "further calls, timed",
    "score": "score",
}


def time_spent(events: list[dict[str, Any]]) -> dict[str, tuple[int, float]]:
    """For each kind of work how often it was done and the seconds, in order; then all of them."""
    seconds: defaultdict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for event in events:
        if event["event"] == "phase":
            seconds[event["phase"]] += event["seconds"]
            counts[event["phase"]] += 1
    known = {words: (counts[phase], seconds[phase]) for phase, words in PHASES.items()}
    ended = next(at(event) for event in events if event["event"] == "worker ended")
    whole = at(events[-1]) - at(events[0])
    written = at(events[-1]) - ended
    planned = whole - written - sum(spent for _, spent in known.values())
    trials = sum(event["event"] == "trial" for event in events)
    return {
        **known,
        "plan, and keep what was measured": (trials, planned),
        "write the plan, the script and the report": (1, written),
        "all": (1, whole),
    }


def at(event: dict[str, Any]) -> float:
    """Seconds since the epoch."""
    return datetime.fromisoformat(event["time"]).timestamp()


def main() -> None:
    """Print a table."""
    log = Path(sys.argv[1]) / "study" / "events.jsonl"
    spent = time_spent([json.loads(line) for line in log.read_text().splitlines() if line])
    _, whole = spent["all"]
    print("| what | times | seconds | share |\n|---|---|---|---|")
    for what, (times, seconds) in spent.items():
        print(f"| {what} | {times} | {seconds:.1f} | {seconds / whole:.1%} |")


if __name__ == "__main__":
    main()
