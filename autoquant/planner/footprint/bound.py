"""The least a candidate can need: a search need not load what cannot fit."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import lru_cache

from autoquant.errors import BackendUnavailable
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.footprint.activations import decoder_tape, denoiser_tape, is_followed
from autoquant.planner.footprint.denoiser import is_counted
from autoquant.planner.footprint.family import decoder_of, denoiser_of
from autoquant.planner.footprint.request import request_for
from autoquant.planner.footprint.shapes import ModelShapes
from autoquant.planner.footprint.weights import component_bytes
from autoquant.planner.measurement import GIB, Trial
from autoquant.planner.workload import Workload
from autoquant.search_spaces.scheme import Choice

# A step that is followed allocation by allocation equals its trace, and a closed form is a few
# percent off for models of the usual proportions; small ones may have others.
_LEAST_OF_A_FOLLOWED_STEP = 0.95
_LEAST_OF_A_CLOSED_FORM = 0.5
# What a bound leaves out, of one candidate against another on one device: at least 0.82 of it was
# there in the published tables (docs/estimate.md).
_SHARE_OF_THE_GAP = 0.75

# What rearranges activations in ways that are not followed here; other switches are the user's.
_PLAIN = {"offload": "none", "compile": "none", "vae_tiling": False, "vae_slicing": False}
_KEPT_ON_THE_DEVICE = "none"
_ONE_COMPONENT_AT_A_TIME = "model"


class PeakBound:
    """Tells a search the least peak of each candidate, better the more has been measured.

    Args:
        shapes: The pipeline's headers and configs.
        workload: What is drawn.
    """

    def __init__(self, shapes: ModelShapes, workload: Workload) -> None:
        self._shapes = shapes
        self._workload = workload
        self._known: dict[str, float | None] = {}
        self._corrections: dict[tuple[Runtime, int], float] = {}

    def __call__(self, candidate: Candidate, trials: Collection[Trial]) -> float | None:
        """A peak in GiB that ``candidate`` will not go below; ``None`` if nothing can be said.

        Args:
            candidate: Of this pipeline.
            trials: All so far; only those under the same runtime say something of this one.
        """
        own = self._uncorrected(candidate)
        return None if own is None else own + self._correction(candidate.runtime, trials)

    def _correction(self, runtime: Runtime, trials: Collection[Trial]) -> float:
        key = (runtime, len(trials))  # a search only ever adds trials
        if key not in self._corrections:
            measured = [
                (bound_gb, trial.measured.peak_gb)
                for trial in trials
                if trial.measured is not None
                and trial.candidate.runtime == runtime
                and (bound_gb := self._uncorrected(trial.candidate)) is not None
            ]
            self._corrections[key] = corrected_bound_gb(0.0, measured)
        return self._corrections[key]

    def _uncorrected(self, candidate: Candidate) -> float | None:
        key = candidate.key
        if key not in self._known:
            self._known[key] = self._predicted(candidate)
        return self._known[key]

    def _predicted(self, candidate: Candidate) -> float | None:
        try:
            return optimistic_peak_gb(self._shapes, candidate, self._workload)
        except BackendUnavailable:  # a scheme of another package, whose storage nobody described
            return None


def optimistic_peak_gb(
    shapes: ModelShapes, candidate: Candidate, workload: Workload
) -> float | None:
    """A peak in GiB that ``candidate`` will not go below, by any counter.

    The bytes of the weights that must lie on the device at once are exact. Where everything is as
    usual, the tensors of the largest stage come to them: no scratch memory, no allocator's reserve,
    nothing of the prompt, no guidance.

    Args:
        shapes: The pipeline's headers and configs.
        candidate: A choice by component; components without one stay as they are.
        workload: What is drawn.

    Returns:
        ``None`` where weights are moved layer by layer, so that nothing can be said.

    Raises:
        BackendUnavailable: The storage of a scheme is not known.
    """
    runtime = candidate.runtime
    held = [
        component_bytes(component, candidate.components.get(name, Choice()), runtime.compute_dtype)
        for name, component in shapes.components.items()
    ]
    offload = runtime.model_dump().get("offload", _KEPT_ON_THE_DEVICE)
    if offload == _ONE_COMPONENT_AT_A_TIME:
        return max(held, default=0) / GIB
    if offload != _KEPT_ON_THE_DEVICE:
        return None
    activations = 0.0
    if _is_plain(runtime):
        images = min(workload.batch_size, len(workload.prompts) * len(workload.seeds))
        activations = _least_activation_bytes(
            shapes, workload.height, workload.width, images, runtime.compute_dtype
        )
    return (sum(held) + activations) / GIB


def corrected_bound_gb(bound_gb: float, measured: Sequence[tuple[float, float]]) -> float:
    """A bound that has learnt from measurements on the device.

    What a bound leaves out (scratch, reserve, kernels' buffers) hardly depends on how weights are
    stored, so most of the least that any measurement showed of it is added. A measurement below its
    own bound shows that the bound was wrong, and lowers it by all that it was.

    Args:
        bound_gb: From ``optimistic_peak_gb``.
        measured: Bound and measured peak of candidates measured so far, of the same workload.
    """
    gap = min((peak_gb - its_bound_gb for its_bound_gb, peak_gb in measured), default=0.0)
    return bound_gb + (_SHARE_OF_THE_GAP * gap if gap > 0 else gap)


def _is_plain(runtime: Runtime) -> bool:
    settings = runtime.model_dump()
    return all(settings.get(name, usual) == usual for name, usual in _PLAIN.items())


@lru_cache(maxsize=64)
def _least_activation_bytes(
    shapes: ModelShapes, height: int, width: int, images: int, compute_dtype: str
) -> float:
    """The denoiser's or the decoder's, as far as its code is known.

    The call is taken as if nothing were read and nothing guided.
    """
    request = request_for(shapes, height, width, images, compute_dtype)
    request = replace(request, text_tokens=0, joint_tokens=0, denoised=request.batch)
    least = 0.0
    denoiser, vae = denoiser_of(shapes), decoder_of(shapes)
    if denoiser is not None and is_counted(denoiser):
        least = _LEAST_OF_A_CLOSED_FORM * denoiser_tape(shapes, request).peak_bytes
    if vae is not None and is_followed(vae):
        decoding = decoder_tape(shapes, request, workspaces=False).peak_bytes
        least = max(least, _LEAST_OF_A_FOLLOWED_STEP * decoding)
    return least
