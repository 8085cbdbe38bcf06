"""Compare predictions with published measurements, row by row.

Run: python benchmarks/estimate_published.py DIRECTORY [--plot FILE]

DIRECTORY holds the published tables as CSV files: flux1_dev_h100.csv (Hugging Face blog, "Exploring
quantization backends in diffusers"), flux1_dev_torchao_h100.csv (sayakpaul/diffusers-torchao),
pixart_sigma_h100.csv and sd3_medium_h100.csv (Hugging Face blog, "Memory-efficient diffusion
transformers with quanto"). The shapes come from examples/models. No constant of the predictions was
fitted to these rows; docs/estimate.md says which rules were read off them.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from xml.sax.saxutils import escape

from autoquant.planner.footprint.activations import decoder_tape, denoiser_tape, encoder_tapes
from autoquant.planner.footprint.allocator import reserved_for
from autoquant.planner.footprint.layers import eligible_layers
from autoquant.planner.footprint.memory import (
    CUBLAS_WORKSPACE,
    Memory,
    one_after_another,
    total,
)
from autoquant.planner.footprint.offload import resident_sizes
from autoquant.planner.footprint.request import request_for
from autoquant.planner.footprint.shape_list import read_shape_list
from autoquant.planner.footprint.shapes import ComponentShapes, ModelShapes
from autoquant.planner.footprint.weights import held_parts, kept_originals_bytes, tensor_bytes
from autoquant.planner.measurement import GIB
from autoquant.search_spaces.scheme import NONE, Choice

MODELS = Path(__file__).parent.parent / "examples" / "models"
ALIASES = {"bf16": NONE, "torchao:fp8wo": "torchao:float8wo", "torchao:fp8dq": "torchao:float8dq"}
DTYPES = {"fp16": "float16", "bf16": "bfloat16"}

# What transformers does with T5's `wo` when it quantizes while loading (quantizers/): bitsandbytes
# keeps it in float32, the others in the compute dtype. quanto's own quantize() takes all layers.
KEEPS_WO = {"bitsandbytes": "float32", "torchao": "compute", "quanto": "compute"}


# Rows that another row of their own table contradicts, whatever the model of memory. SD3: the table
# says that they do not work, and quantizing the second text encoder changed no byte (8.200 with it
# against 8.204 without). quanto in the backends blog: see contradictions().
CONTRADICTED = "contradicted row"
CONTRADICTED_SCHEMES = {"quanto:int4", "quanto:float8"}

# quanto stores four bits, and a scale and a shift of two bytes for each 128 weights.
BITS_OF_QUANTO = {"quanto:float8": 8.0, "quanto:int4": 4.0 + 32 / 128}


@dataclass(frozen=True)
class Row:
    """One published number and its prediction, both in GiB."""

    table: str
    what: str
    kind: str
    published: float
    predicted: float

    @property
    def error(self) -> float:
        """Relative; positive where too much is predicted."""
        return self.predicted / self.published - 1


def component(
    shapes: ComponentShapes, scheme: str, dtype: str, *, while_loading: bool, fused: bool = False
) -> Memory:
    """One component as the publishers loaded it."""
    choice = Choice(scheme=ALIASES.get(scheme, scheme))
    backend = choice.scheme.partition(":")[0]
    wo = [f"{path}" for path in eligible_layers(shapes) if path.endswith(".wo")]
    keeps = KEEPS_WO.get(backend) if while_loading else None
    if keeps:
        choice = choice.model_copy(update={"exclusions": tuple(wo)})
    if backend == "layerwise":  # enable_layerwise_casting() leaves norms and patch embeddings
        kept = [p for p in eligible_layers(shapes) if "norm" in p or p in {"proj_out"}]
        choice = choice.model_copy(update={"exclusions": tuple(kept)})
    held = held_parts(shapes, choice, dtype)
    if keeps == "float32":
        held.update({f"{p}.weight": (2 * held[f"{p}.weight"][0],) for p in wo})
    added = kept_originals_bytes(shapes, choice, dtype) if fused else 0
    sizes = [size for parts in held.values() for size in parts]
    return Memory(sum(sizes) + added, reserved_for(sizes) + added)


def model(name: str) -> ModelShapes:
    """The shapes of one of the examples."""
    return read_shape_list(MODELS / f"{name}.json")


def read(path: Path) -> list[dict[str, str]]:
    """The rows of one published table."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def held(
    shapes: ModelShapes, schemes: Mapping[str, str], dtype: str, *, while_loading: bool
) -> dict[str, Memory]:
    """Every component of a pipeline."""
    return {
        name: component(part, schemes.get(name, NONE), dtype, while_loading=while_loading)
        for name, part in shapes.components.items()
    }


def running(shapes: ModelShapes, batch: int, resident: Memory) -> Memory:
    """The peak of a call with ``resident`` weights."""
    request = request_for(shapes, 1024, 1024, batch)
    tapes = [
        *encoder_tapes(shapes, request).values(),
        denoiser_tape(shapes, request),
        decoder_tape(shapes, request),
    ]
    return resident + one_after_another({"call": tapes})["call"]


def backends_blog(directory: Path) -> Iterator[Row]:
    """FLUX.1-dev under each backend; the counter is reserved memory."""
    flux = model("flux.1-dev")
    for row in read(directory / "flux1_dev_h100.csv"):
        schemes = {name: row[name] for name in ("transformer", "text_encoder_2")}
        parts = held(flux, schemes, "bfloat16", while_loading=True)
        loaded, peak = offloaded(flux, parts, row["offload"], row["transformer"])
        kind = "peak, compiled" if row["compile"] != "no" else "peak"
        doubt = f", {CONTRADICTED}" if row["transformer"] in CONTRADICTED_SCHEMES else ""
        what = f"{row['transformer']} | {row['text_encoder_2']}" + (
            f" | {row['offload']}" if row["offload"] != "none" else ""
        )
        if row["compile"] == "no":
            yield Row(
                "backends blog",
                what,
                f"weights{doubt}",
                float(row["memory_after_loading_gb"]),
                loaded.reserved / GIB,
            )
        published = float(row["peak_memory_gb"])
        yield Row("backends blog", what, f"{kind}{doubt}", published, peak.reserved / GIB)


def offloaded(
    flux: ModelShapes, parts: Mapping[str, Memory], offload: str, transformer: str
) -> tuple[Memory, Memory]:
    """After loading, and the peak: quantized components are quantized on the device."""
    if offload == "none":
        loaded = total(parts.values())
        return loaded, running(flux, 1, loaded)
    denoiser = flux.components["transformer"]
    quantized = total([parts["transformer"], parts["text_encoder_2"]])
    if offload == "model":
        # int8 modules of bitsandbytes could not be moved then, so they stay.
        stays = transformer == "bitsandbytes:int8"
        resident = quantized + parts["vae"] if stays else parts["vae"]
        peak = running(flux, 1, resident)
        return quantized, Memory(0, max(quantized.reserved, peak.reserved))
    others = total(memory for name, memory in parts.items() if name != "transformer")
    # They applied it to the transformer alone; layers are moved as they are stored, in bfloat16
    # before the first cast.
    plain = {name: (size,) for name, size in tensor_bytes(denoiser, "bfloat16").items()}
    moved = resident_sizes(plain, "group_leaf_stream", in_blocks=True)
    ahead = Memory(sum(moved), reserved_for(moved))
    return others, running(flux, 1, others + ahead)


def torchao_table(directory: Path) -> Iterator[Row]:
    """FLUX.1-dev by diffusers-torchao; the counter is allocated memory.

    Peaks of quantized rows are those of loading the unquantized model and are left out.
    """
    flux = model("flux.1-dev")
    for row in read(directory / "flux1_dev_torchao_h100.csv"):
        parts = held(flux, {"transformer": row["transformer"]}, "bfloat16", while_loading=True)
        loaded = total(parts.values())
        what = f"{row['transformer']} | batch {row['batch_size']}"
        compiled = row["compile"] == "yes"
        yield Row(
            "diffusers-torchao",
            what,
            "weights",
            float(row["model_memory_gb"]),
            loaded.allocated / GIB,
        )
        if row["transformer"] == "bf16":
            peak = running(flux, int(row["batch_size"]), loaded)
            kind = "peak, compiled" if compiled else "peak"
            yield Row(
                "diffusers-torchao",
                what,
                kind,
                float(row["inference_memory_gb"]),
                peak.allocated / GIB,
            )


def quanto_blog(directory: Path) -> Iterator[Row]:
    """PixArt-Sigma and SD3-medium: allocated after a call, as it does not grow with the batch."""
    for table, name in (
        ("pixart_sigma_h100.csv", "pixart-sigma"),
        ("sd3_medium_h100.csv", "sd3-medium"),
    ):
        shapes = model(name)
        for row in read(directory / table):
            dtype = DTYPES[row["dtype"]]
            fused = row.get("fuse_qkv") == "yes"
            parts = [
                component(
                    part,
                    row.get(key, NONE),
                    dtype,
                    while_loading=False,
                    fused=fused and key == "transformer",
                )
                for key, part in shapes.components.items()
            ]
            predicted = total(parts).allocated + CUBLAS_WORKSPACE
            chosen = " ".join(row[key] for key in shapes.components if key in row)
            what = f"{row['dtype']} {chosen} | batch {row['batch_size']}" + (
                " | fused" if fused else ""
            )
            kind = f"weights, {CONTRADICTED}" if row.get("works") == "no" else "weights"
            yield Row(name, what, kind, float(row["memory_gb"]), predicted / GIB)


TABLES: tuple[Callable[[Path], Iterator[Row]], ...] = (backends_blog, torchao_table, quanto_blog)


def contradictions(directory: Path) -> Iterator[str]:
    """What the rows of quanto say of each other.

    The three were made by one loader, which quantizes the same layers for every precision. Then
    bytes are linear in the bits of a weight, and two rows tell the others.
    """
    blog = {row["transformer"]: row for row in read(directory / "flux1_dev_h100.csv")[::-1]}
    at = {name: float(row["memory_after_loading_gb"]) for name, row in blog.items()}
    quantized_gb = 2 * (at["bf16"] - at["quanto:int8"])
    for scheme, bits in BITS_OF_QUANTO.items():
        expected = at["bf16"] - quantized_gb * (1 - bits / 16)
        yield (
            f"{scheme} published {at[scheme]:.3f}; the rows of bf16 and quanto:int8 leave "
            f"{quantized_gb:.2f} GB of weights to quantize and so {expected:.2f} "
            f"({at[scheme] / expected - 1:+.1%})"
        )


def summary(rows: list[Row]) -> Iterator[str]:
    """Medians and worst errors by kind."""
    for kind in dict.fromkeys(row.kind for row in rows):
        errors = [abs(row.error) for row in rows if row.kind == kind]
        yield (
            f"{kind}: {len(errors)} rows, median error {median(errors):.2%}, "
            f"worst {max(errors):.2%}, within 3% {sum(e <= 0.03 for e in errors)}"
        )


def markdown(rows: list[Row]) -> str:
    """The table for the documentation."""
    lines = [
        "| table | row | what | published | predicted | error |",
        "|---|---|---|---:|---:|---:|",
    ]
    lines += [
        f"| {row.table} | {row.what.replace('|', '·')} | {row.kind} | {row.published:.3f} | "
        f"{row.predicted:.3f} | {row.error:+.1%} |"
        for row in rows
    ]
    return "\n".join([*(f"- {line}" for line in summary(rows)), "", *lines])


_SIZE, _MARGIN, _MOST_GB = 420, 45, 45.0
_COLOURS = {
    "weights": "#1b6ca8",
    "peak": "#c2512f",
    "peak, compiled": "#7a5195",
    f"weights, {CONTRADICTED}": "#999",
    f"peak, {CONTRADICTED}": "#bbb",
}


def plot(rows: list[Row]) -> str:
    """Predicted against published, as SVG."""

    def place(gb: float) -> float:
        return gb / _MOST_GB * (_SIZE - 2 * _MARGIN)

    def x(gb: float) -> str:
        return f"{_MARGIN + place(gb):.1f}"

    def y(gb: float) -> str:
        return f"{_SIZE - _MARGIN - place(gb):.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_SIZE} {_SIZE}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{_SIZE}" height="{_SIZE}" fill="white"/>',
        f'<line x1="{x(0)}" y1="{y(0)}" x2="{x(_MOST_GB)}" y2="{y(_MOST_GB)}" stroke="#bbb"/>',
        f'<text x="{_SIZE / 2}" y="{_SIZE - 8}" text-anchor="middle">published, GiB</text>',
        f'<text x="14" y="{_SIZE / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {_SIZE / 2})">predicted, GiB</text>',
    ]
    for tick in range(0, int(_MOST_GB) + 1, 10):
        parts.append(f'<text x="{x(tick)}" y="{_SIZE - 28}" text-anchor="middle">{tick}</text>')
        parts.append(f'<text x="{_MARGIN - 8}" y="{y(tick)}" text-anchor="end">{tick}</text>')
    for row in rows:
        parts.append(
            f'<circle cx="{x(row.published)}" cy="{y(row.predicted)}" r="3" fill-opacity="0.6" '
            f'fill="{_COLOURS[row.kind]}"><title>{escape(row.what)}</title></circle>'
        )
    for line, (kind, colour) in enumerate(_COLOURS.items()):
        height = _MARGIN + 14 * line
        parts.append(f'<circle cx="{_MARGIN + 14}" cy="{height - 4}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{_MARGIN + 24}" y="{height}">{kind}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Compare predictions with published measurements.")
    parser.add_argument("directory", type=Path, help="where the published tables are")
    parser.add_argument("--plot", type=Path, help="write predicted against published as SVG")
    arguments = parser.parse_args()
    rows = [row for table in TABLES for row in table(arguments.directory)]
    print(markdown(rows))
    print()
    for line in contradictions(arguments.directory):
        print(f"- {line}")
    if arguments.plot:
        arguments.plot.write_text(plot(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
