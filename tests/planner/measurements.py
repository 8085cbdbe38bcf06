"""Measurements to plan with, written by hand."""

from __future__ import annotations

from collections.abc import Sequence

from autoquant.metrics.latency import LatencySummary
from autoquant.metrics.score import MetricScore
from autoquant.planner.candidate import Candidate
from autoquant.planner.measurement import Measured, Trial
from autoquant.search_spaces.scheme import Choice


def measured(
    *,
    loss: float = 0.0,
    peak_gb: float = 1.0,
    weights_gb: float | None = None,
    latency_s: float = 1.0,
    spread_s: float = 0.0,
    per_image: Sequence[float] | None = None,
    load_peak_gb: float = 1.0,
    component_gb: dict[str, float] | None = None,
    quantized_layers: dict[str, int] | None = None,
    ram_gb: float | None = None,
    counter: str = "cpu.tracked_tensors",
) -> Measured:
    values = tuple(per_image if per_image is not None else (loss, loss, loss, loss))
    return Measured(
        weights_gb=peak_gb / 2 if weights_gb is None else weights_gb,
        component_gb=component_gb or {"transformer": peak_gb / 4, "text_encoder": peak_gb / 4},
        load_peak_gb=load_peak_gb,
        peak_gb=peak_gb,
        counter=counter,
        ram_gb=ram_gb,
        latency_s=LatencySummary(
            median=latency_s, low=latency_s - spread_s, high=latency_s + spread_s, runs=4
        ),
        loss=loss,
        fidelity={
            "flip": MetricScore(
                mean=sum(values) / len(values),
                low=min(values),
                high=max(values),
                worst=max(values),
                worst_index=values.index(max(values)),
                per_image=values,
            )
        },
        metric="flip",
        noise_floor=0.0,
        quantized_layers=quantized_layers or {"transformer": 10, "text_encoder": 10},
    )


def candidate(transformer: str = "none", text_encoder: str = "none") -> Candidate:
    return Candidate(
        components={
            "transformer": Choice(scheme=transformer),
            "text_encoder": Choice(scheme=text_encoder),
        }
    )


def trial(number: int, what: Candidate | None = None, **figures: object) -> Trial:
    return Trial(
        number=number,
        candidate=what or candidate(f"fake:{number}"),
        measured=measured(**figures),  # type: ignore[arg-type]
    )
