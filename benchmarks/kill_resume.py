"""Searches over recorded measurements that are killed at a random moment, and go on.

First make a real search of the demo, then search over its measurements again and again:

    autoquant suggest demo --vram 0.006 --latency 5 --no-cache --out demo-study
    python benchmarks/kill_resume.py demo-study/study

Each search is a planner process with a worker process, as ``autoquant suggest`` runs them; only
what the worker does for a candidate is replaced by reading the record. One of the two gets a
SIGKILL after a random time, and the same command is given again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from autoquant.planner.budget import Budget
from autoquant.planner.delivery import Planned
from autoquant.planner.identity import Identity
from autoquant.planner.output import ResumableOutput
from autoquant.planner.planning import plan_pipeline
from autoquant.planner.request import Request
from autoquant.planner.search_settings import SearchSettings
from autoquant.planner.study_directory import STUDY, StudyDirectory

IDENTITY = Identity(parts={"model": {"content": "recorded"}})
# When and how long, and what the machine said of itself meanwhile.
DIFFERING = {"created": True, "search": {"seconds", "notes"}}


def search(record: Path, out: Path, budget: Budget, trials: int) -> None:
    """One search over the measurements in ``record``, into ``out``."""
    request = Request(pipeline=str(record), clip_model=str(out))
    with StudyDirectory(out / STUDY, IDENTITY) as study:
        planned = plan_pipeline(
            request,
            budget,
            SearchSettings(trials=trials),
            study,
            worker="benchmarks.recorded_worker",
        )
        ResumableOutput(out, STUDY).put(lambda directory: save(planned, directory))


def save(planned: Planned, directory: Path) -> None:
    """Write the plan without what differs between two runs over the same measurements."""
    plan = planned.plan.model_dump_json(exclude=DIFFERING)  # type: ignore[arg-type]
    (directory / "plan.json").write_text(plan)


def start(arguments: argparse.Namespace, out: Path) -> subprocess.Popen[bytes]:
    """The same search in a process of its own."""
    command = [sys.executable, __file__, str(arguments.study), "--into", str(out)]
    command += ["--vram", str(arguments.vram), "--latency", str(arguments.latency)]
    command += ["--trials", str(arguments.trials)]
    repository = str(Path(__file__).parent.parent)
    paths = [repository, os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    return subprocess.Popen(command, env=environment)


def kill_at_a_random_moment(
    process: subprocess.Popen[bytes], out: Path, target: str, after_s: float
) -> str | None:
    """Kill the planner or its worker; returns what was going on, or ``None`` if it was over."""
    try:
        process.wait(after_s)
        return None
    except subprocess.TimeoutExpired:
        pass
    events = list(read_events(out))
    victim = process.pid
    if target == "worker":
        started = [event["worker"] for event in events if event["event"] == "worker started"]
        if not started:
            return kill_at_a_random_moment(process, out, target, 0.2)
        victim = started[-1]
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
    return str(events[-1]["event"]) if events else "starting"


def read_events(out: Path) -> Iterator[dict[str, object]]:
    """The log so far; a line that was cut short is left out."""
    path = out / STUDY / "events.jsonl"
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def finished(out: Path) -> set[str]:
    """Digests of the candidates that are on disk."""
    return {path.stem for path in (out / STUDY / "trials").glob("*.json")}


def main() -> None:
    """Print a table: what was killed when, and how it went on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no more then")
    parser.add_argument("--vram", type=float, default=0.006)
    parser.add_argument("--latency", type=float, default=5.0)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.into is not None:
        budget = Budget.of(vram_gb=arguments.vram, latency_s=arguments.latency)
        search(arguments.study, arguments.into, budget, arguments.trials)
        return
    with tempfile.TemporaryDirectory(prefix="kill-resume-") as place:
        run_all(arguments, Path(place))


@dataclass
class Tally:
    """What became of the searches so far."""

    searches: int = 0
    ended: int = 0
    lost: int = 0
    repeated: int = 0
    equal: int = 0
    moments: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __str__(self) -> str:
        rows = [
            f"| {target} | {moment} | {count} |"
            for (target, moment), count in sorted(self.moments.items())
        ]
        head = ["| SIGKILL to the | after the event | searches |", "|---|---|---:|"]
        return "\n".join(
            [
                *head,
                *rows,
                "",
                f"{self.searches} searches: {self.ended} went on to their end, {self.lost} "
                f"finished trials lost, {self.repeated} measured again, {self.equal} plans equal "
                "to the undisturbed one.",
            ]
        )


def run_all(arguments: argparse.Namespace, place: Path) -> None:
    """Search undisturbed once, then with a kill each, while there is time."""
    began = time.monotonic()
    deadline = began + 60 * arguments.minutes
    assert start(arguments, place / "undisturbed").wait() == 0
    length = time.monotonic() - began
    expected = (place / "undisturbed" / "plan.json").read_text()
    n_trials = len(finished(place / "undisturbed"))
    print(f"undisturbed: {n_trials} candidates measured, {length:.1f} s\n", flush=True)
    dice = random.Random(arguments.seed)
    tally = Tally()
    for number in range(arguments.runs):
        if time.monotonic() < deadline:
            run_one(arguments, place / str(number), dice, length, expected, tally)
    print(tally)


def run_one(
    arguments: argparse.Namespace,
    out: Path,
    dice: random.Random,
    length: float,
    expected: str,
    tally: Tally,
) -> None:
    """One search that is killed, and goes on."""
    target = dice.choice(["planner", "worker"])
    process = start(arguments, out)
    moment = kill_at_a_random_moment(process, out, target, dice.uniform(0.0, length))
    before = finished(out)
    if target == "planner" and moment is not None:
        process.wait()
        before = finished(out)
        process = start(arguments, out)
    status = process.wait()
    measured = Counter(
        str(event["digest"]) for event in read_events(out) if event["event"] == "measured"
    )
    tally.searches += 1
    tally.ended += status == 0
    tally.lost += len(before - finished(out))
    tally.repeated += sum(count - 1 for count in measured.values())
    tally.equal += status == 0 and (out / "plan.json").read_text() == expected
    tally.moments[target, moment or "already over"] += 1
    shutil.rmtree(out)


if __name__ == "__main__":
    main()
