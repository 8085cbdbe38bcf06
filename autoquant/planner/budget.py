"""The limits that a plan must keep. GB is GiB (2**30 bytes), as card sizes are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from autoquant.errors import InputError

Objective = Literal["loss", "latency", "vram"]


class Budget(BaseModel):
    """Limits on one pipeline; ``None`` means no limit.

    Attributes:
        vram_gb: Peak memory of a pipeline call, weights included, in GiB.
        latency_s: Median wall seconds of one pipeline call.
        load_peak_gb: Peak memory while loading, in GiB.
        max_loss: Largest loss against the unquantized images, in units of the deciding metric.
        ram_gb: Peak host memory of the measuring process while loading and drawing, above what it
            holds when idle, in GiB.
        objective: What is made least within the limits: the loss, the seconds of a call, or the
            peak memory of a call.
        calls_per_session: Pipeline calls over which the time for compiling is spread; ``None``
            leaves it out.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    vram_gb: float | None = None
    latency_s: float | None = None
    ram_gb: float | None = None
    load_peak_gb: float | None = None
    max_loss: float | None = None
    objective: Objective = "loss"
    calls_per_session: float | None = None

    def missed_share(self, values: Mapping[str, float]) -> float:
        """Sum over the stated limits of the share by which ``values`` miss them; 0 is feasible."""
        limits: dict[str, float | None] = {name: getattr(self, name) for name in values}
        return sum(
            max(0.0, values[name] - limit) / max(limit, 1e-9)
            for name, limit in limits.items()
            if limit is not None
        )

    @classmethod
    def of(
        cls,
        vram_gb: float | None = None,
        latency_s: float | None = None,
        load_peak_gb: float | None = None,
        max_loss: float | None = None,
        ram_gb: float | None = None,
        objective: str = "loss",
        calls_per_session: float | None = None,
    ) -> Budget:
        """Check the limits that a user gave.

        Raises:
            InputError: A limit is not a number, not finite, or not above zero; the objective is
                unknown, or would reward damaged images because the loss has no limit.
        """
        if objective not in get_args(Objective):
            raise InputError(
                f"objective must be one of {', '.join(get_args(Objective))}, got {objective!r}."
            )
        if objective != "loss" and max_loss is None:
            raise InputError(
                f"The objective {objective!r} needs a limit on the loss (max_loss): without one "
                "the most damaged images win."
            )
        limits = {
            "vram_gb": vram_gb,
            "latency_s": latency_s,
            "load_peak_gb": load_peak_gb,
            "max_loss": max_loss,
            "ram_gb": ram_gb,
            "calls_per_session": calls_per_session,
        }
        for name, limit in limits.items():
            if limit is None:
                continue
            if isinstance(limit, bool) or not isinstance(limit, int | float):
                raise InputError(f"{name} must be a number, got {limit!r}.")
            lowest_is_allowed = name == "max_loss"
            if not math.isfinite(limit) or limit < 0 or (limit == 0 and not lowest_is_allowed):
                raise InputError(f"{name} must be a finite number above 0, got {limit!r}.")
        given = {name: float(limit) for name, limit in limits.items() if limit is not None}
        return cls.model_validate({**given, "objective": objective})
