"""Read the table that ``record_table.py`` wrote, and answer candidates from it."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from autoquant.errors import CandidateFailed
from autoquant.metrics.latency import LatencySummary, summarize
from autoquant.metrics.score import MetricScore
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.measurement import GIB, Measured
from autoquant.planner.racing import Race, stopped
from autoquant.search_spaces.levers import LeverSpace
from autoquant.search_spaces.scheme import NONE, Choice
from autoquant.search_spaces.space import SearchSpace

# Of the workload that record_table.py draws.
IMAGES_A_CALL = 4
TABLE = Path(__file__).parent / "demo_table.json.gz"


class RecordedTable:
    """Measurements of every candidate of a space.

    Attributes:
        space: The space that was measured.
        runtimes: The runtimes that it was measured under; the first is the usual one.
        choices: For each component its choices, in the order of the rows.
        entries: The file as it is.
    """

    def __init__(self, path: Path = TABLE) -> None:
        self._open(json.loads(gzip.decompress(path.read_bytes())))

    def _open(self, entries: dict[str, Any]) -> None:
        self.entries = entries
        self.choices = {
            name: [Choice.model_validate(choice) for choice in choices]
            for name, choices in self.entries["choices"].items()
        }
        self.runtimes = [Runtime.model_validate(runtime) for runtime in self.entries["runtimes"]]
        self.space = SearchSpace.model_validate(
            {
                "components": self.entries["space"],
                "levers": {
                    lever: tuple(dict.fromkeys(getattr(it, lever) for it in self.runtimes))
                    for lever in LeverSpace.model_fields
                },
            }
        )
        self._position = {
            name: {choice: place for place, choice in enumerate(choices)}
            for name, choices in self.choices.items()
        }
        self._measured: dict[int, Measured] = {}

    def restricted(
        self,
        schemes: Mapping[str, Sequence[str]],
        runtimes: int | None = None,
        prompts: int | None = None,
    ) -> RecordedTable:
        """A smaller table: fewer schemes, only the first runtimes, only the first prompts.

        The rows of fewer prompts cost as much less as drawing and scoring them took.
        """
        kept = {
            name: [
                place
                for place, choice in enumerate(choices)
                if choice.scheme == NONE or choice.scheme in schemes.get(name, [choice.scheme])
            ]
            for name, choices in self.choices.items()
        }
        sizes = [*map(len, self.choices.values()), len(self.runtimes)]
        places = [*kept.values(), range(len(self.runtimes))[:runtimes]]
        rows = [_position(at, sizes) for at in product(*places)]
        entries, columns = dict(self.entries), self.entries["columns"]
        entries["columns"] = {name: [columns[name][row] for row in rows] for name in columns}
        entries["failures"] = {
            str(new): self.entries["failures"][str(row)]
            for new, row in enumerate(rows)
            if str(row) in self.entries["failures"]
        }
        if prompts is not None:
            _cut_prompts(entries["columns"], prompts)
        entries["runtimes"] = entries["runtimes"][:runtimes]
        for part in ("choices", "components"):
            entries[part] = {
                name: [entries[part][name][place] for place in kept[name]] for name in kept
            }
        entries["space"] = {
            name: {
                **space,
                "schemes": [
                    s for s in space["schemes"] if s in schemes.get(name, [s]) or s == NONE
                ],
            }
            for name, space in entries["space"].items()
        }
        smaller = object.__new__(RecordedTable)
        smaller._open(entries)
        return smaller

    def __len__(self) -> int:
        return len(self.entries["columns"]["seconds"])

    def row(self, candidate: Candidate) -> int:
        """Where the candidate's row is.

        Raises:
            CandidateFailed: It is not in the table.
        """
        row = 0
        try:
            for name, positions in self._position.items():
                row = row * len(positions) + positions[candidate.components[name]]
            return row * len(self.runtimes) + self.runtimes.index(candidate.runtime)
        except (KeyError, ValueError):
            raise CandidateFailed(f"No measurement is recorded for {candidate.label}.") from None

    def candidate(self, row: int) -> Candidate:
        """The candidate of a row."""
        row, runtime = divmod(row, len(self.runtimes))
        components = {}
        for name, choices in reversed(self.choices.items()):
            row, place = divmod(row, len(choices))
            components[name] = choices[place]
        return Candidate(
            components={name: components[name] for name in self.choices},
            runtime=self.runtimes[runtime],
        )

    def seconds(self, candidate: Candidate, drawn: Measured | None = None) -> float:
        """CPU seconds of the whole trial: load, quantize, draw, score.

        Images that were left out in ``drawn`` cost nothing.
        """
        row = self.row(candidate)
        spared = 0.0
        if drawn is not None:
            images = len(self.entries["columns"]["losses"][row])
            spared = self.entries["columns"]["drawing_s"][row] * drawn.undrawn_images / images
        return float(self.entries["columns"]["seconds"][row]) - float(spared)

    def measure(self, candidate: Candidate, race: Race | None = None) -> Measured:
        """Answer a candidate, as far as it would have been drawn in a race.

        Raises:
            CandidateFailed: It is not in the table, or could not be measured then.
        """
        row = self.row(candidate)
        if row not in self._measured:
            self._measured[row] = self._read(row)
        whole = self._measured[row]
        return whole if race is None else stopped(whole, race, IMAGES_A_CALL)

    def all_measured(self) -> Iterator[Measured]:
        """Every row that is no failure."""
        for row in range(len(self)):
            with suppress(CandidateFailed):
                yield self.measure(self.candidate(row))

    def _read(self, row: int) -> Measured:
        entries, columns = self.entries, self.entries["columns"]
        if str(row) in entries["failures"]:
            raise CandidateFailed(entries["failures"][str(row)])
        candidate = self.candidate(row)
        parts = {
            name: entries["components"][name][self._position[name][choice]]
            for name, choice in candidate.components.items()
        }
        held = {name: part["held_bytes"] / GIB for name, part in parts.items()}
        held["vae"] = entries["vae"]["held_bytes"] / GIB
        losses = columns["losses"][row]
        mean, floor = math.fsum(losses) / len(losses), entries["noise_floor"]
        middle, low, high = columns["latency_s"][row]
        return Measured(
            weights_gb=sum(held.values()),
            component_gb=held,
            load_peak_gb=columns["load_peak_bytes"][row] / GIB,
            peak_gb=columns["peak_bytes"][row] / GIB,
            counter="cpu.tracked_tensors",
            latency_s=LatencySummary(
                median=middle, low=low, high=high, runs=entries["timed_calls"]
            ),
            loss=max(0.0, mean - floor),
            fidelity={
                entries["metric"]: MetricScore(
                    mean=mean,
                    low=None,
                    high=None,
                    worst=max(losses),
                    worst_index=losses.index(max(losses)),
                    per_image=tuple(losses),
                )
            },
            metric=entries["metric"],
            metric_identity=entries["metric_identity"],
            noise_floor=floor,
            quantized_layers={
                name: part["quantized_layers"]
                for name, part in parts.items()
                if part["quantized_layers"]
            },
        )


def _position(at: Sequence[int], sizes: Sequence[int]) -> int:
    row = 0
    for place, size in zip(at, sizes, strict=True):
        row = row * size + place
    return row


def _cut_prompts(columns: dict[str, list[Any]], prompts: int) -> None:
    drawn = max(map(len, columns["losses"]))
    columns["seconds"] = [
        seconds - drawing * (1 - prompts / drawn)
        for seconds, drawing in zip(columns["seconds"], columns["drawing_s"], strict=True)
    ]
    columns["losses"] = [losses[:prompts] for losses in columns["losses"]]


def compile_table(work: Path) -> dict[str, Any]:
    """Put what ``record_table.py`` wrote to ``work`` in order.

    Seconds are CPU seconds of one thread. Those of a call are multiplied by what an unquantized
    call took at that time, against what it took in the median: the machine is shared.

    Raises:
        ValueError: Rows are missing.
    """
    header = json.loads((work / "header.json").read_text())
    recorded = [json.loads(line) for line in (work / "rows.jsonl").read_text().splitlines()]
    _set_right(recorded)
    by_row: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for entry in recorded:
        by_row.setdefault(tuple(entry["row"]), []).append(entry)
    runtimes = sorted({row[-1] for row in by_row})
    components = _components(work, header)
    columns: dict[str, list[Any]] = {
        name: []
        for name in ("losses", "peak_bytes", "load_peak_bytes", "latency_s", "seconds", "drawing_s")
    }
    failures: dict[str, str] = {}
    sizes = [*(range(len(choices)) for choices in header["choices"].values()), runtimes]
    for number, row in enumerate(product(*sizes)):
        entries = by_row.get(row)
        if not entries:
            raise ValueError(f"Row {row} is missing; run record_table.py again.")
        parts = [
            components[name][place] for name, place in zip(header["choices"], row[:-1], strict=True)
        ]
        built_s = sum(part["seconds"] for part in (*parts, header["vae"]))
        _append(columns, failures, number, entries, built_s + header["assembly_s"])
        columns["load_peak_bytes"].append(_load_peak(header, parts))
    return {
        **{key: value for key, value in header.items() if key not in {"assembly_s"}},
        "schema": "autoquant.table/1",
        "runtimes": [header["runtimes"][runtime] for runtime in runtimes],
        "components": components,
        "timed_calls": len(recorded[0]["cpu_s"]),
        "columns": columns,
        "failures": failures,
    }


def _set_right(recorded: list[dict[str, Any]]) -> None:
    """Divide the machine's other work out of each row's seconds."""
    yardsticks = [entry.get("yardstick_s") for entry in recorded]
    known = [value for value in yardsticks if value is not None]
    usual = median(known)
    for place, entry in enumerate(recorded):
        near = [v for v in yardsticks[max(0, place - 3) : place + 4] if v is not None]
        entry["busy"] = median(near or known) / usual


def _append(
    columns: dict[str, list[Any]],
    failures: dict[str, str],
    number: int,
    entries: list[dict[str, Any]],
    built_s: float,
) -> None:
    ran = [entry for entry in entries if "failure" not in entry]
    if not ran:
        failures[str(number)] = entries[0]["failure"]
        for name, nothing in (("losses", []), ("peak_bytes", 0), ("latency_s", [])):
            columns[name].append(nothing)
        columns["seconds"].append(round(built_s, 3))
        columns["drawing_s"].append(0.0)
        return
    first = ran[0]
    if any(entry["losses"] != first["losses"] for entry in ran):
        raise ValueError(f"Row {first['row']} drew other images the second time.")
    calls = [seconds / entry["busy"] for entry in ran for seconds in entry["cpu_s"]]
    called = summarize(calls)
    columns["losses"].append([float(f"{loss:.5g}") for loss in first["losses"]])
    columns["peak_bytes"].append(first["peak_bytes"])
    columns["latency_s"].append([round(s, 5) for s in (called.median, called.low, called.high)])
    drawing_s = median([(sum(e["cpu_s"]) + e["scoring_s"]) / e["busy"] for e in ran])
    counted_s = median([e["counted_s"] / e["busy"] for e in ran])
    columns["drawing_s"].append(round(drawing_s, 3))
    columns["seconds"].append(round(built_s + counted_s + drawing_s, 3))


def _components(work: Path, header: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Bytes, and the median seconds of loading and quantizing, for each component's choices."""
    lines = [json.loads(line) for line in (work / "components.jsonl").read_text().splitlines()]
    found: dict[str, list[dict[str, Any]]] = {}
    for name, choices in header["choices"].items():
        found[name] = []
        for place in range(len(choices)):
            same = [line for line in lines if (line["name"], line["index"]) == (name, place)]
            if not same:
                raise ValueError(f"{name} {choices[place]} was not built; run record_table.py.")
            seconds = round(median([line["seconds"] for line in same]), 3)
            figures = {k: v for k, v in same[0].items() if k not in {"name", "index"}}
            found[name].append({**figures, "seconds": seconds})
    return found


def _load_peak(header: dict[str, Any], parts: list[dict[str, Any]]) -> int:
    """Components arrive one after the other: what is held already, and the one that arrives."""
    made = dict(zip(header["choices"], parts, strict=True)) | {"vae": header["vae"]}
    held = peak = 0
    for name in header["component_order"]:
        peak = max(peak, held + made[name]["load_peak_bytes"])
        held += made[name]["held_bytes"]
    return int(peak)
