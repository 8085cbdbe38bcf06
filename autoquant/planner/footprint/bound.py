"""The least a candidate can need: a search need not load what cannot fit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from autoquant.planner.candidate import Candidate
from autoquant.planner.footprint.activations import decoder_tape, denoiser_tape, encoder_tapes
from autoquant.planner.footprint.request import Request, request_for
from autoquant.planner.footprint.shapes import ModelShapes
from autoquant.planner.footprint.weights import component_bytes
from autoquant.planner.measurement import GIB
from autoquant.planner.workload import Workload
from autoquant.search_spaces.scheme import Choice

# The closed forms of the activations were at most 4% off their traces; weights are exact.
_LEAST_OF_ACTIVATIONS = 0.9
_UNGUIDED = 1.0
# Caution: fragmentation may be kinder to a candidate than to those measured.
_SHARE_OF_THE_GAP = 0.75


def optimistic_peak_gb(shapes: ModelShapes, candidate: Candidate, workload: Workload) -> float:
    """A peak in GiB that ``candidate`` will not go below, by any counter.

    The bytes of the weights are exact. To them come the largest stage's tensors, less a tenth: no
    scratch memory, no allocator's reserve, nothing that only an accelerator takes.

    Args:
        shapes: The pipeline's headers and configs.
        candidate: A choice by component; components without one stay as they are.
        workload: What is drawn.

    Raises:
        BackendUnavailable: The storage of a scheme is not known, so nothing can be said.
    """
    dtype = candidate.runtime.compute_dtype
    weights = sum(
        component_bytes(component, candidate.components.get(name, Choice()), dtype)
        for name, component in shapes.components.items()
    )
    return (
        weights
        + _LEAST_OF_ACTIVATIONS * _activation_bytes(shapes, _request(shapes, candidate, workload))
    ) / GIB


def corrected_bound_gb(bound_gb: float, measured: Sequence[tuple[float, float]]) -> float:
    """A bound that has learnt from measurements on the device.

    What a bound leaves out (scratch, reserve, kernels' buffers) hardly depends on how weights are
    stored, so the least that any measurement showed of it is added.

    Args:
        bound_gb: From ``optimistic_peak_gb``.
        measured: Bound and measured peak of candidates measured so far, of the same workload.
    """
    gaps = (peak_gb - measured_bound_gb for measured_bound_gb, peak_gb in measured)
    return bound_gb + max(0.0, _SHARE_OF_THE_GAP * min(gaps, default=0.0))


def _request(shapes: ModelShapes, candidate: Candidate, workload: Workload) -> Request:
    request = request_for(
        shapes,
        workload.height,
        workload.width,
        workload.batch_size,
        candidate.runtime.compute_dtype,
    )
    length = workload.call_arguments.get("max_sequence_length")
    scale = workload.guidance_scale
    return request.with_call(
        text_tokens=length if isinstance(length, int) else None,
        unguided=scale is not None and scale <= _UNGUIDED,
    )


@lru_cache(maxsize=16)
def _activation_bytes(shapes: ModelShapes, request: Request) -> int:
    tapes = [
        *encoder_tapes(shapes, request).values(),
        denoiser_tape(shapes, request),
        decoder_tape(shapes, request, workspaces=False),
    ]
    return max(tape.peak_bytes for tape in tapes)
