"""An estimate as plain data, for ``--json``."""

from __future__ import annotations

from typing import Any

from autoquant.planner.footprint.bands import PEAK_BAND, RAM_BAND, WEIGHTS_BAND, Band
from autoquant.planner.footprint.estimate import Estimate, Row
from autoquant.planner.footprint.memory import Memory
from autoquant.planner.footprint.option import Option
from autoquant.planner.footprint.request import Request
from autoquant.planner.measurement import GIB

SCHEMA = "autoquant.estimate/1"

CAVEAT = (
    "Predicted from headers and configs, nothing was measured: memory only, no latency, and bits "
    "per weight say little about images."
)


def as_data(estimate: Estimate, command: str) -> dict[str, Any]:
    """The estimate as JSON values; sizes are in GB, which is GiB.

    Args:
        estimate: What to write.
        command: The command that measures what was predicted.
    """
    request = estimate.request
    return {
        "schema": SCHEMA,
        "predicted": True,
        "note": CAVEAT,
        "measure_with": command,
        "pipeline": estimate.model.class_name,
        "budget": {"vram_gb": estimate.budget.vram_gb, "ram_gb": estimate.budget.ram_gb},
        "request": {
            "height": request.height,
            "width": request.width,
            "batch_size": request.batch,
            "text_tokens": request.text_tokens,
            "compute_dtype": request.compute_dtype,
        },
        "counter": "cuda.reserved",
        "latency_s": None,
        "notes": list(estimate.notes),
        "options": [_row(row, request) for row in estimate.rows],
    }


def _row(row: Row, request: Request) -> dict[str, Any]:
    prediction = row.prediction
    return {
        **_option(row.option, request),
        "verdict": row.verdict,
        "certain": row.certain,
        "nearest_that_fits": _option(row.nearest, request) if row.nearest else None,
        "mean_bits": round(row.bits, 3),
        "weights": _memory(prediction.weights, WEIGHTS_BAND),
        "load_peak": _memory(prediction.load, PEAK_BAND),
        "stages": {name: _memory(peak, PEAK_BAND) for name, peak in prediction.stages.items()},
        "peak": _memory(prediction.peak, PEAK_BAND),
        "ram": {
            "load_gb": _range(prediction.load_ram_bytes, RAM_BAND),
            "run_gb": _range(prediction.ram_bytes, RAM_BAND),
        },
    }


def _option(option: Option, request: Request) -> dict[str, Any]:
    return {
        "label": option.label(request),
        "components": {
            name: choice.model_dump(mode="json") for name, choice in option.choices.items()
        },
        "offload": option.arrangement.offload,
        "vae_tiling": option.arrangement.vae_tiling,
    }


def _memory(memory: Memory, band: Band) -> dict[str, Any]:
    return {
        "allocated_gb": _range(memory.allocated, band),
        "reserved_gb": _range(memory.reserved, band),
    }


def _range(n_bytes: float, band: Band) -> dict[str, float]:
    return {
        "low": round(band.at("low", n_bytes) / GIB, 4),
        "predicted": round(n_bytes / GIB, 4),
        "high": round(band.at("high", n_bytes) / GIB, 4),
    }
