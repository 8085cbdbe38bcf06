"""Measure every scheme that runs here on the demo pipeline, and print the tables of choosing.md.

    OMP_NUM_THREADS=1 python benchmarks/which_backend.py
    OMP_NUM_THREADS=1 python benchmarks/which_backend.py raised_layers      one table alone

Each row is a candidate that the planner's own evaluator loaded, quantized, checked layer by layer,
drew with and compared with the unquantized images. Latencies are left out: a CPU's say nothing of a
card's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent.parent))

from autoquant.console.quiet import quiet_libraries
from autoquant.errors import CandidateFailed
from autoquant.planner.candidate import Candidate
from autoquant.planner.evaluator import AnsweringEvaluator
from autoquant.planner.measurement import Measured
from autoquant.planner.parameters import unquantized
from autoquant.planner.preparation import prepare
from autoquant.planner.quantities import gigabytes
from autoquant.planner.request import Preparation, Request
from autoquant.search_spaces.layer_groups import smallest_exclusions
from autoquant.search_spaces.scheme import NONE, Choice, Override, Scheme
from autoquant.search_spaces.wider import next_wider

DENOISER = "transformer"


class Bench:
    """One pipeline, its space, and every measurement so far."""

    def __init__(self, prepared: Preparation, evaluator: AnsweringEvaluator) -> None:
        self.prepared = prepared
        self.components = prepared.space.components
        self._evaluator = evaluator
        self._known: dict[str, Measured | str] = {}

    def measure(self, choices: dict[str, Choice]) -> Measured | str:
        """The figures, or why there are none."""
        usual = unquantized(self.prepared.space, self.prepared.runtime)
        candidate = usual.model_copy(update={"components": usual.components | choices})
        if candidate.key not in self._known:
            self._known[candidate.key] = self._answer(candidate)
        return self._known[candidate.key]

    def _answer(self, candidate: Candidate) -> Measured | str:
        print(f"measuring {candidate.label}", file=sys.stderr)
        try:
            return self._evaluator.answer(candidate).measured
        except CandidateFailed as failure:
            return str(failure)

    @property
    def schemes(self) -> list[str]:
        """The schemes that run here, the unquantized one first."""
        return list(dict.fromkeys(s for part in self.components.values() for s in part.schemes))


def everywhere(bench: Bench) -> Iterable[Sequence[str]]:
    """Each scheme on every component that takes it, least loss first."""
    yield "Scheme", "Weights", "of BF16", "Peak", "Loss", "Worst image"
    rows: list[tuple[float, Sequence[str]]] = []
    whole = bench.prepared.reference.measured.weights_gb
    for scheme in bench.schemes:
        taking = [name for name, part in bench.components.items() if scheme in part.schemes]
        found = bench.measure({name: bench.components[name].plainest(scheme) for name in taking})
        note = "" if len(taking) == len(bench.components) else f" ({', '.join(taking)})"
        label = f"`{scheme}`{note}" if scheme != NONE else "unquantized"
        if isinstance(found, str):
            rows.append((9.0, (label, f"failed: {found}", *[""] * 4)))
            continue
        figures = (
            gigabytes(found.weights_gb),
            f"{found.weights_gb / whole:.0%}",
            gigabytes(found.peak_gb),
            f"{found.loss:.2g}",
            f"{found.fidelity[found.metric].worst:.2g}",
        )
        rows.append((found.loss, (label, *figures)))
    yield from (row for _, row in sorted(rows, key=lambda row: row[0]))


def one_component(bench: Bench) -> Iterable[Sequence[str]]:
    """The loss where each component alone is quantized."""
    yield "Scheme", *(f"`{name}` alone" for name in bench.components)
    for scheme in bench.schemes[1:]:
        cells = []
        for name, part in bench.components.items():
            if scheme not in part.schemes:
                cells.append("–")
                continue
            found = bench.measure({name: part.plainest(scheme)})
            cells.append("failed" if isinstance(found, str) else f"{found.loss:.2g}")
        yield f"`{scheme}`", *cells


def kept_layers(bench: Bench) -> Iterable[Sequence[str]]:
    """What it brings to keep the denoiser's sensitive layers unquantized."""
    part = bench.components[DENOISER]
    yield (
        "Denoiser's scheme",
        *(f"{len(paths)} layers kept" if paths else "all layers" for paths in part.exclusions),
    )
    for scheme in part.schemes[1:]:
        cells = []
        for paths in part.exclusions:
            found = bench.measure({DENOISER: Choice(scheme=scheme, exclusions=paths)})
            cells.append(
                "failed"
                if isinstance(found, str)
                else f"{found.loss:.2g} at {gigabytes(found.component_gb[DENOISER])}"
            )
        yield f"`{scheme}`", *cells


def raised_layers(bench: Bench) -> Iterable[Sequence[str]]:
    """What it brings to store groups of the denoiser's layers in the next wider precision."""
    part = bench.components[DENOISER]
    groups = bench.prepared.layer_groups[DENOISER]
    yield "Denoiser's scheme", "all layers", *(group.name for group in groups), "all in the wider"
    every_layer = [path for group in groups for path in group.layers]
    for scheme in part.schemes[1:]:
        wider = next_wider(scheme, part.schemes)
        if wider is None:
            continue
        sets = [smallest_exclusions(group.layers, every_layer) for group in groups]
        choices = [
            Choice(scheme=scheme),
            *(Choice(scheme=scheme, overrides=(Override(scheme=wider, layers=s),)) for s in sets),
            Choice(scheme=wider),
        ]
        cells = []
        for choice in choices:
            found = bench.measure({DENOISER: choice})
            cells.append(
                "failed"
                if isinstance(found, str)
                else f"{found.loss:.2g} at {gigabytes(found.component_gb[DENOISER])}"
            )
        yield f"`{scheme}`, {Scheme.parse(wider).precision}", *cells


TABLES: dict[str, Callable[[Bench], Iterable[Sequence[str]]]] = {
    "Each scheme on every component": everywhere,
    "Which component it hurts: loss where one alone is quantized": one_component,
    "What it brings to keep sensitive layers: loss, and the denoiser's bytes": kept_layers,
    "What it brings to give one group the next wider precision": raised_layers,
}


def main() -> None:
    """Measure, and print the tables as Markdown."""
    quiet_libraries()
    with TemporaryDirectory() as images:
        prepared, evaluator = prepare(Request(pipeline="demo", download=False), Path(images))
        bench = Bench(prepared, evaluator)
        measured = prepared.reference.measured
        versions = ", ".join(f"{name} {version}" for name, version in prepared.versions.items())
        print(
            f"{prepared.class_name}, {len(prepared.workload.samples)} images, {measured.metric} "
            f"(noise floor {measured.noise_floor:.2g} taken off), {prepared.device.name}; "
            f"{versions}."
        )
        asked = sys.argv[1:]
        for title, table in TABLES.items():
            if asked and table.__name__ not in asked:
                continue
            head, *rows = table(bench)
            print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
            print("\n".join(f"| {' | '.join(row)} |" for row in rows), flush=True)


if __name__ == "__main__":
    main()
