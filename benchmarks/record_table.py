"""Measure a whole space of the demo pipeline once, candidate by candidate, into a table.

Every row is a real pipeline: its components are quantized as its choices say, every prompt is
drawn, the images are compared with the unquantized ones. What two rows share is made once: each
component is loaded and quantized once for each of its choices and then kept, which changes neither
images nor bytes (``--check 20`` measures rows again from scratch with the planner's own evaluator).
Run it again to go on where it was stopped:

    OMP_NUM_THREADS=1 python benchmarks/record_table.py --work DIR
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from autoquant import demo
from autoquant.console.quiet import quiet_libraries
from autoquant.errors import CandidateFailed, first_line
from autoquant.files import write_bytes
from autoquant.metrics.device import fingerprint, package_versions
from autoquant.metrics.fidelity import Metric, available_metrics, losses_of, score
from autoquant.metrics.host_memory import HostMemory, resident_bytes
from autoquant.metrics.images import check_images
from autoquant.metrics.memory import counter_for
from autoquant.planner.building import build_pipeline
from autoquant.planner.device_evaluator import DeviceEvaluator
from autoquant.planner.drawing import Images, draw
from autoquant.planner.loading import ComponentLoader, loader_for
from autoquant.planner.workload import Workload
from autoquant.search_spaces.quantize import apply_choice
from autoquant.search_spaces.scheme import NONE, Choice
from autoquant.search_spaces.space import ComponentSpace, open_space
from autoquant.storage import held_bytes
from benchmarks.recorded_table import TABLE, RecordedTable, compile_table

CPU = torch.device("cpu")
DTYPE = torch.bfloat16

SCHEMES = {
    "transformer": (
        "bitsandbytes:nf4",
        "torchao:int8wo",
        "torchao:float8wo",
        "quanto:int4",
        "quanto:int2",
        "gguf:Q8_0",
        "gguf:Q5_0",
        "sdnq:int6",
    ),
    "text_encoder_2": (
        "bitsandbytes:nf4",
        "torchao:int8wo",
        "quanto:int2",
        "gguf:Q5_0",
    ),
    "text_encoder": ("bitsandbytes:nf4", "torchao:int8wo", "gguf:Q5_0"),
}
"""Every width, and every backend at least once; projections are not fused, which changes little.
With everything that is open to the demo the space would hold 37,632 candidates a runtime."""

RUNTIMES: tuple[dict[str, bool], ...] = ({}, {"vae_slicing": True})


@dataclass(frozen=True)
class Built:
    """One component under one of its choices."""

    module: torch.nn.Module
    held_bytes: int
    load_peak_bytes: int
    quantized_layers: int
    seconds: float


def workload() -> Workload:
    """The demo's own prompts, four to a call."""
    known = demo.WORKLOAD
    return Workload(
        prompts=tuple(known["prompts"]),
        seeds=(0,),
        height=known["height"],
        width=known["width"],
        steps=known["steps"],
        batch_size=4,
        call_arguments={"max_sequence_length": known["max_sequence_length"]},
    )


def choices_of(component: ComponentSpace) -> list[Choice]:
    """Every choice for one component."""
    return [
        Choice(scheme=scheme, exclusions=exclusions, fuse_qkv=fused)
        for scheme, fused in product(component.schemes, component.fuse_qkv)
        for exclusions in (component.distinct_exclusions(scheme) if scheme != NONE else ((),))
    ]


def open_table_space(loader: ComponentLoader) -> dict[str, ComponentSpace]:
    """What ``open_space`` offers for the demo, with the schemes of ``SCHEMES`` only."""
    every = sorted({scheme for schemes in SCHEMES.values() for scheme in schemes})
    outlines = {name: loader.outline(name) for name in loader.sizes}
    space = open_space(loader.pipeline_class.__name__, outlines, "cpu", every)
    return {
        name: ComponentSpace(
            schemes=(NONE, *schemes),
            exclusions=space.components[name].exclusions if name == "transformer" else ((),),
        )
        for name, schemes in SCHEMES.items()
    }


def build(loader: ComponentLoader, name: str, choice: Choice) -> Built:
    """Load and quantize one component, counting what the evaluator counts."""
    started = time.process_time()
    layers: tuple[str, ...] = ()
    with counter_for(CPU).watch() as reading:
        module = loader.load(name, DTYPE)
        reading.hold(module)
        if choice != Choice():
            layers = apply_choice(module, choice, DTYPE).layers
    seconds = time.process_time() - started
    return Built(module, held_bytes(module), reading.peak_bytes, len(layers), seconds)


class Recorder:
    """Holds the components, draws the rows and appends them to files."""

    def __init__(self, work: Path) -> None:
        self.loader = loader_for(demo.pipeline_directory())
        self.space = open_table_space(self.loader)
        self.choices = {name: choices_of(part) for name, part in self.space.items()}
        self.workload = workload()
        self.batches = list(self.workload.batches())
        metrics, missing = available_metrics(["flip"], image_size=(64, 64), allow_download=False)
        assert not missing
        self.metric: Metric = metrics["flip"]
        self._work = work
        self._work.mkdir(parents=True, exist_ok=True)
        self._rows = self._work / "rows.jsonl"
        self._vae = build(self.loader, "vae", Choice())
        self._encoders: dict[tuple[str, int], Built] = {}
        plain = {name: build(self.loader, name, Choice()).module for name in self.space}
        started = time.process_time()
        self.pipeline = self.loader.assemble({"vae": self._vae.module, **plain}, DTYPE)
        self.assembly_s = time.process_time() - started
        self._plain = plain
        self.reference_images = self._draw_all()
        with sdpa_kernel(SDPBackend.MATH):
            again = self._draw_all()
        self.floor = float(np.mean(self._losses(again)))

    def _draw_all(self) -> Images:
        return np.concatenate([draw(self.pipeline, self.workload, b) for b in self.batches])

    def _losses(self, images: Images) -> list[float]:
        scored = score(self.metric, self.reference_images, images, self.workload.prompts)
        return list(losses_of(self.metric.name, scored))

    def done(self) -> set[tuple[int, ...]]:
        """Rows and their pass that are in the file."""
        if not self._rows.exists():
            return set()
        lines = self._rows.read_text().splitlines()
        return {(row["pass"], *row["row"]) for row in map(json.loads, lines)}

    def record(self, passes: int, seed: int) -> None:
        """Measure what is missing, in an order that mixes the rows."""
        done = self.done()
        for number in range(passes):
            rng = random.Random(f"{seed} {number}")
            order = list(range(len(self.choices["transformer"])))
            rng.shuffle(order)
            for transformer in order:
                others = [range(len(self.choices[name])) for name in self.choices][1:]
                rows = [(transformer, *rest) for rest in product(*others, range(len(RUNTIMES)))]
                rng.shuffle(rows)
                missing = [row for row in rows if (number, *row) not in done]
                if missing:
                    self._record_rows(number, missing)

    def _record_rows(self, number: int, rows: list[tuple[int, ...]]) -> None:
        started = time.monotonic()
        transformer = self._built("transformer", rows[0][0])
        with self._rows.open("a") as file:
            for row in rows:
                modules = {
                    "transformer": transformer,
                    "text_encoder_2": self._built("text_encoder_2", row[1]),
                    "text_encoder": self._built("text_encoder", row[2]),
                }
                entry = {"pass": number, "row": row, **self._measure(modules, RUNTIMES[row[3]])}
                file.write(json.dumps(entry) + "\n")
                file.flush()
        label = self.choices["transformer"][rows[0][0]]
        print(f"pass {number} {rows[0]} {label} {time.monotonic() - started:.1f} s", flush=True)

    def _built(self, name: str, index: int) -> Built:
        """The encoders are kept; one transformer at a time."""
        if (name, index) in self._encoders:
            return self._encoders[name, index]
        built = build(self.loader, name, self.choices[name][index])
        with (self._work / "components.jsonl").open("a") as file:
            file.write(json.dumps({"name": name, "index": index, **_figures(built)}) + "\n")
        if name != "transformer":
            self._encoders[name, index] = built
        return built

    def _measure(self, built: dict[str, Built], runtime: dict[str, bool]) -> dict[str, Any]:
        try:
            self._use({name: part.module for name, part in built.items()}, runtime)
            return self._draw_and_score()
        except CandidateFailed as failure:
            return {"failure": str(failure)}
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            return {"failure": f"{type(error).__name__}: {first_line(error)}"}

    def _draw_and_score(self) -> dict[str, Any]:
        started = time.process_time()
        with counter_for(CPU).watch(*self._modules()) as reading:
            draw(self.pipeline, self.workload, self.batches[0])
        counted_s = time.process_time() - started
        images, cpu_s, wall_s = [], [], []
        for batch in self.batches:
            wall, cpu = time.perf_counter(), time.process_time()
            images.append(draw(self.pipeline, self.workload, batch))
            cpu_s.append(round(time.process_time() - cpu, 6))
            wall_s.append(round(time.perf_counter() - wall, 6))
        started = time.process_time()
        drawn = np.concatenate(images)
        check_images(drawn, self.workload.prompts, self.reference_images)
        losses = self._losses(drawn)
        scoring_s = time.process_time() - started
        return {
            "losses": losses,
            "peak_bytes": reading.peak_bytes,
            "held_bytes": held_bytes(*self._modules()),
            "cpu_s": cpu_s,
            "wall_s": wall_s,
            "counted_s": counted_s,
            "scoring_s": scoring_s,
            "yardstick_s": self._yardstick(),
        }

    def _yardstick(self) -> float:
        """CPU seconds of one unquantized call, to tell how busy the machine was just now."""
        self._use(self._plain, {})
        started = time.process_time()
        draw(self.pipeline, self.workload, self.batches[0])
        return time.process_time() - started

    def _use(self, modules: dict[str, torch.nn.Module], runtime: dict[str, bool]) -> None:
        self.pipeline.register_modules(**modules)
        if runtime.get("vae_slicing"):
            self._vae.module.enable_slicing()
        else:
            self._vae.module.disable_slicing()

    def _modules(self) -> Iterator[torch.nn.Module]:
        for component in self.pipeline.components.values():
            if isinstance(component, torch.nn.Module):
                yield component

    def header(self) -> dict[str, Any]:
        """What every row has in common."""
        return {
            "device": fingerprint(CPU).model_dump(),
            "versions": package_versions(),
            "workload": self.workload.model_dump(mode="json"),
            "metric": self.metric.name,
            "metric_identity": self.metric.identity,
            "noise_floor": self.floor,
            "runtimes": RUNTIMES,
            "space": {name: part.model_dump(mode="json") for name, part in self.space.items()},
            "choices": {
                name: [choice.model_dump(mode="json") for choice in choices]
                for name, choices in self.choices.items()
            },
            "component_order": list(self.loader.sizes),
            "vae": _figures(self._vae),
            "assembly_s": self.assembly_s,
        }


def _figures(built: Built) -> dict[str, Any]:
    return {
        "held_bytes": built.held_bytes,
        "load_peak_bytes": built.load_peak_bytes,
        "quantized_layers": built.quantized_layers,
        "seconds": built.seconds,
    }


def check(count: int, seed: int) -> None:
    """Measure rows of the table from scratch with the planner's own evaluator, and compare."""
    table = RecordedTable()
    loader = loader_for(demo.pipeline_directory())
    usual = table.candidate(0)
    metrics, _ = available_metrics(["flip"], image_size=(64, 64), allow_download=False)
    differing = 0
    with TemporaryDirectory() as images:
        evaluator = DeviceEvaluator(
            loader,
            build_pipeline(loader, usual, CPU),
            usual,
            Workload.model_validate(table.entries["workload"]),
            CPU,
            metrics,
            "flip",
            Path(images),
            HostMemory(resident_bytes()),
        )
        for row in random.Random(seed).sample(range(len(table)), count):
            candidate = table.candidate(row)
            recorded, again = table.measure(candidate), evaluator.answer(candidate).measured
            same = (
                [float(f"{loss:.5g}") for loss in losses_of("flip", again.fidelity["flip"])]
                == list(recorded.fidelity["flip"].per_image)
                and again.peak_gb == recorded.peak_gb
                and abs(again.weights_gb - recorded.weights_gb) < 1e-9
            )
            differing += not same
            print(
                f"{candidate.label}: {'the same' if same else 'differs'}; loss {recorded.loss:.5f} "
                f"{again.loss:.5f}, peak {recorded.peak_gb * 1024:.3f} {again.peak_gb * 1024:.3f} "
                f"MB, load peak {recorded.load_peak_gb * 1024:.3f} "
                f"{again.load_peak_gb * 1024:.3f} MB, "
                f"call {1000 * recorded.latency_s.median:.0f} "
                f"{1000 * again.latency_s.median:.0f} ms",
                flush=True,
            )
    print(f"{count - differing} of {count} rows draw the same images in the same memory.")


def main() -> None:
    """Record, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("build/table"), help="where unfinished rows are kept"
    )
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", type=int, help="measure so many rows of the table again")
    arguments = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    if arguments.check:
        check(arguments.check, arguments.seed)
        return
    recorder = Recorder(arguments.work)
    (arguments.work / "header.json").write_text(json.dumps(recorder.header()))
    total = np.prod([len(c) for c in recorder.choices.values()]) * len(RUNTIMES)
    print(f"{total} rows, noise floor {recorder.floor:.5f}", flush=True)
    recorder.record(arguments.passes, arguments.seed)
    table = json.dumps(compile_table(arguments.work), separators=(",", ":"))
    write_bytes(TABLE, gzip.compress(table.encode(), mtime=0))


if __name__ == "__main__":
    main()
