"""After how many images the time that compiling takes is paid back."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from autoquant.errors import CandidateFailed
from autoquant.planner.evaluator import Evaluator
from autoquant.planner.measurement import Measured, Trial
from autoquant.planner.quantities import seconds

_logger = logging.getLogger(__name__)


class CompilePayback(BaseModel):
    """What compiling costs once, and what it saves each time.

    Attributes:
        compile_s: Seconds that the first call takes longer than the others.
        uncompiled_s: Median seconds of a call of the same candidate without compiling.
        compiled_s: Median seconds of a call.
        images: Images after which compiling is paid back; None if it saves nothing.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    compile_s: float
    uncompiled_s: float
    compiled_s: float
    images: int | None

    @property
    def sentence(self) -> str:
        """What it costs and when it pays, for people."""
        costs = f"Compiling takes {seconds(self.compile_s)} once and "
        calls = (
            f"{seconds(self.uncompiled_s)} a call without it, {seconds(self.compiled_s)} with it"
        )
        if self.images is None:
            return f"{costs}saves nothing: {calls}."
        return f"{costs}is paid back after {self.images} images: {calls}."


def compile_payback(compiled: Measured, uncompiled: Measured, batch_size: int) -> CompilePayback:
    """Compare a compiled candidate with the same one uncompiled."""
    saved_s = uncompiled.latency_s.median - compiled.latency_s.median
    return CompilePayback(
        compile_s=compiled.compile_s,
        uncompiled_s=uncompiled.latency_s.median,
        compiled_s=compiled.latency_s.median,
        images=math.ceil(compiled.compile_s / saved_s) * batch_size if saved_s > 0 else None,
    )


def measure_payback(
    chosen: Trial, trials: Iterable[Trial], evaluator: Evaluator | None, batch_size: int
) -> CompilePayback | None:
    """``compile_payback`` of the chosen trial; ``evaluator`` measures its uncompiled twin.

    Returns:
        None if the choice is not compiled, or its twin is not measured.
    """
    assert chosen.measured is not None
    if chosen.candidate.runtime.compile == "none":
        return None
    twin = chosen.candidate.uncompiled
    known = next((trial for trial in trials if trial.candidate == twin), None)
    if known is not None:
        uncompiled = known.measured
    elif evaluator is None:
        return None
    else:
        try:
            uncompiled = evaluator.measure(twin)
        except CandidateFailed as failure:
            _logger.warning("No payback of compiling: %s: %s", twin.label, failure)
            return None
    if uncompiled is None:
        return None
    return compile_payback(chosen.measured, uncompiled, batch_size)
