"""The plan: the chosen candidate with its evidence, as ``plan.json`` holds it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from autoquant.errors import PlanFormatError
from autoquant.files import write_text
from autoquant.metrics.device import DeviceFingerprint
from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.confirmation import Confirmation
from autoquant.planner.loras import Adapter
from autoquant.planner.measurement import Measured
from autoquant.planner.payback import CompilePayback
from autoquant.planner.recheck import Recheck
from autoquant.planner.sensitivity import Sensitivity
from autoquant.planner.source import PipelineSource
from autoquant.planner.workload import Workload
from autoquant.search_spaces.levers import LeverConflict, LeverStruck
from autoquant.search_spaces.scheme import Choice
from autoquant.search_spaces.space import Struck

if TYPE_CHECKING:
    from autoquant.planner.emit.emission import Emitted

SCHEMA = "autoquant.plan/1"
_SCHEMA_NAME, _, _SCHEMA_VERSION = SCHEMA.partition("/")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MODULE_PATH = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


class _Part(BaseModel):
    # Keys may be added to a schema without a new number, so an unknown one is not an error.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class PlannedPipeline(_Part):
    """The pipeline that was measured: ``class`` is its diffusers class."""

    class_name: str
    source: str
    revision: str | None = None
    variant: str | None = None

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=lambda n: "class" if n == "class_name" else n,
        validate_by_name=True,
    )

    @field_validator("class_name")
    @classmethod
    def _class_is_a_name(cls, name: str) -> str:
        if not _IDENTIFIER.fullmatch(name):
            raise ValueError(f"{name!r} is no class name")
        return name

    def as_source(self) -> PipelineSource:
        """Where the weights are."""
        return PipelineSource(location=self.source, revision=self.revision, variant=self.variant)


class PlannedComponent(Choice):
    """The choice for one component, and why."""

    why: str = ""

    @property
    def choice(self) -> Choice:
        """The choice alone."""
        return Choice(**{name: getattr(self, name) for name in Choice.model_fields})


class ReferenceCost(_Part):
    """What the unquantized pipeline costs."""

    weights_gb: float
    peak_gb: float
    latency_s: float
    fits: bool


class ParetoPoint(_Part):
    """A measured candidate that no other beats in loss, peak memory and latency."""

    components: dict[str, Choice]
    runtime: Runtime
    measured: Measured
    chosen: bool = False
    feasible: bool = True


class FailedTrial(_Part):
    """A candidate that could not be measured."""

    components: dict[str, Choice]
    reason: str


class PredictionError(_Part):
    """How far the measured trials were from what was predicted of them.

    Attributes:
        checked: How many trials were predicted before they were measured.
        loss_median: Median of the differences, in units of the deciding metric.
        loss_worst: The largest of them.
        peak_median: Median of the differences as shares of what was measured; so the others.
    """

    checked: int
    loss_median: float
    loss_worst: float
    peak_median: float
    peak_worst: float
    latency_median: float
    latency_worst: float


class PrunedTrial(_Part):
    """A candidate that was never loaded: its peak would be at least ``bound_gb``, in GiB."""

    components: dict[str, Choice]
    runtime: Runtime
    bound_gb: float
    vram_gb: float


class SearchSummary(_Part):
    """How the plan was found.

    Attributes:
        converged: Whether it ended because no candidate was left that should improve on the best.
        stopped: How many candidates were not drawn whole, because they could not become the plan.
        undrawn_images: How many images that spared.
        prediction_error: ``None`` if nothing was predicted.
        rechecks: What was measured again, because a limit lay within its spread.
    """

    trials: int
    pruned: int
    failed: int
    seconds: float
    seed: int
    interrupted: bool = False
    converged: bool = False
    stopped: int = 0
    undrawn_images: int = 0
    prediction_error: PredictionError | None = None
    rechecks: tuple[Recheck, ...] = ()
    rule: str = ""
    ties: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    failures: tuple[FailedTrial, ...] = ()
    pruned_trials: tuple[PrunedTrial, ...] = ()
    struck: tuple[Struck, ...] = ()
    levers_struck: tuple[LeverStruck, ...] = ()
    conflicts: tuple[LeverConflict, ...] = ()


class Plan(_Part):
    """A measured configuration of a pipeline.

    ``load()`` gives the ready pipeline, ``save()`` and ``load_json()`` write and read the file, and
    ``print(plan)`` shows a table.
    """

    schema_: Literal["autoquant.plan/1"] = "autoquant.plan/1"
    created: str
    autoquant: str
    pipeline: PlannedPipeline
    budget: Budget
    workload: Workload
    components: dict[str, PlannedComponent]
    runtime: Runtime
    runtime_why: str = ""
    adapters: tuple[Adapter, ...] = ()
    compile_payback: CompilePayback | None = None
    measured: Measured
    reference: ReferenceCost
    pareto: tuple[ParetoPoint, ...] = ()
    search: SearchSummary
    sensitivity: tuple[Sensitivity, ...] = ()
    confirmation: Confirmation | None = None
    device: DeviceFingerprint
    versions: dict[str, str] = {}

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=lambda n: "schema" if n == "schema_" else n,
        validate_by_name=True,
    )

    @model_validator(mode="after")
    def _names_stay_inside_the_pipeline(self) -> Plan:
        for adapter in self.adapters:
            if not _IDENTIFIER.fullmatch(adapter.component):
                raise ValueError(f"{adapter.component!r} is no component name")
        for name, component in self.components.items():
            if not _IDENTIFIER.fullmatch(name):
                raise ValueError(f"{name!r} is no component name")
            overridden = (path for it in component.overrides for path in it.layers)
            for path in (*component.exclusions, *overridden):
                if not _MODULE_PATH.fullmatch(path):
                    raise ValueError(f"{path!r} is no module path inside {name}")
        return self

    @property
    def candidate(self) -> Candidate:
        """The chosen candidate."""
        return Candidate(
            components={name: part.choice for name, part in self.components.items()},
            runtime=self.runtime,
        )

    @property
    def reference_point(self) -> ParetoPoint | None:
        """The unquantized pipeline as everything is compared with it, where its figures are kept.

        Others of the set may quantize nothing either, but pull levers.
        """
        cost = (self.reference.peak_gb, self.reference.latency_s)
        for point in self.pareto:
            candidate = Candidate(components=point.components, runtime=point.runtime)
            if candidate.is_reference and cost == (
                point.measured.peak_gb,
                point.measured.latency_s.median,
            ):
                return point
        return None

    def load(
        self,
        source: str | Path | None = None,
        device: str | None = None,
        *,
        trust_remote_code: bool = False,
    ) -> Any:
        """Load the pipeline as planned, ready to call.

        Args:
            source: Directory or hub id of the pipeline, if it has moved.
            device: Where to put it; by default the accelerator if there is one.
            trust_remote_code: Whether the pipeline may bring code of its own.

        Raises:
            PlanFormatError: The plan names a class or component that the pipeline does not have.
            InputError: The pipeline cannot be found.
        """
        from autoquant.planner.execution import load_planned

        return load_planned(self, source, device, trust_remote_code=trust_remote_code)

    def emit(self, target: str, directory: str | Path, **options: Any) -> Emitted:
        """Write the plan as the files of another tool; ``autoquant emit --list`` names them.

        ``planner.emit.emission.emit_plan`` documents the options and what is raised.
        """
        from autoquant.planner.emit.emission import emit_plan

        return emit_plan(self, target, Path(directory), **options)

    def save(self, path: str | Path) -> Path:
        """Write the plan as JSON, whole or not at all."""
        return write_text(Path(path), self.to_json() + "\n")

    def to_json(self) -> str:
        """The plan as ``plan.json`` holds it."""
        return self.model_dump_json(by_alias=True, indent=2)

    @classmethod
    def load_json(cls, path: str | Path) -> Plan:
        """Read a plan and check it.

        Raises:
            PlanFormatError: The file cannot be read, is damaged, of a newer schema, or names
                something that cannot be part of a pipeline.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PlanFormatError(f"Cannot read the plan {path}: {error}.") from error
        return cls.from_json(text, name=str(path))

    @classmethod
    def from_json(cls, text: str, name: str = "plan") -> Plan:
        """Read a plan from a text; ``name`` stands for it in errors."""
        import json

        try:
            entries = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PlanFormatError(f"{name} is no JSON, it may be cut short: {error}.") from error
        _require_schema(entries, name)
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the plan"
            raise PlanFormatError(f"{name}: {where}: {first['msg']}.") from error

    def __str__(self) -> str:
        from autoquant.console.tables import plan_text

        return plan_text(self)


def _require_schema(entries: object, name: str) -> None:
    schema = entries.get("schema") if isinstance(entries, dict) else None
    if schema == SCHEMA:
        return
    prefix, _, version = str(schema).partition("/")
    if prefix == _SCHEMA_NAME and version.isdecimal() and int(version) > int(_SCHEMA_VERSION):
        raise PlanFormatError(
            f"{name} has the schema {schema}, newer than {SCHEMA} which this version reads; "
            "upgrade: pip install -U diffusers-autoquant"
        )
    raise PlanFormatError(f"{name} is no autoquant plan: its schema is {schema!r}, not {SCHEMA!r}.")
