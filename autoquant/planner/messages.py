"""What the planner and its worker say to each other: plain data, one JSON object a line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from autoquant.planner.candidate import Candidate
from autoquant.planner.health import Health
from autoquant.planner.measurement import Answer, Comparison
from autoquant.planner.phases import Phase
from autoquant.planner.racing import Race
from autoquant.planner.request import Preparation, Request
from autoquant.planner.workload import Workload


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Prepare(_Message):
    """Open the pipeline and measure the reference; the reply is a ``Preparation``."""

    order: Literal["prepare"] = "prepare"
    request: Request
    image_root: str


class Measure(_Message):
    """Measure one candidate; the reply is an ``Answer``.

    A candidate that keeps ``limit_gb`` of device memory is measured under that limit, and one that
    has lost ``race`` is stopped.
    """

    order: Literal["measure"] = "measure"
    candidate: Candidate
    limit_gb: float | None = None
    race: Race | None = None


class Check(_Message):
    """Say how the worker is between two trials; the reply is its ``Health``."""

    order: Literal["check"] = "check"


class Entered(_Message):
    """A phase of the measurement begins; the reply itself is still to come."""

    phase: Phase


class Compare(_Message):
    """Compare one candidate on any workload; the reply is a ``Comparison``."""

    order: Literal["compare"] = "compare"
    candidate: Candidate
    workload: Workload
    timed: bool = True


class Failed(_Message):
    """The candidate could not be measured; ``bound_gb`` of memory were not enough."""

    reason: str
    bound_gb: float | None = None


class Refused(_Message):
    """What was asked for is wrong: the name of an autoquant error, and its message."""

    error: str
    message: str


Order = Prepare | Measure | Compare | Check
Reply = Preparation | Answer | Comparison | Entered | Health | Failed | Refused

_ORDER: TypeAdapter[Order] = TypeAdapter(Annotated[Order, Field(discriminator="order")])
_REPLY: TypeAdapter[Reply] = TypeAdapter(Reply)


def read_order(line: str) -> Order:
    """Read one line from the planner."""
    return _ORDER.validate_json(line)


def read_reply(line: str) -> Reply:
    """Read one line from the worker."""
    return _REPLY.validate_json(line)
