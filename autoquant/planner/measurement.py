"""What a candidate cost and how close it came: the answers of an evaluator."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from autoquant.metrics.latency import LatencySummary
from autoquant.metrics.score import MetricScore, losses_of
from autoquant.planner.candidate import Candidate
from autoquant.search_spaces.scheme import Choice

GIB = 2**30


class Measured(BaseModel):
    """One candidate on one device.

    Attributes:
        weights_gb: Bytes of all distinct storages held after loading, in GiB.
        component_gb: The same for each component.
        load_peak_gb: Most memory while loading and quantizing, in GiB.
        peak_gb: Most memory in a pipeline call, weights included, in GiB.
        counter: What counted the peaks.
        other_counters_gb: Further counters read over the same calls, in GiB.
        ram_gb: Most resident host memory of the measuring process while loading and warming up,
            above what it holds when idle, in GiB.
        latency_s: Wall seconds of one pipeline call.
        compile_s: Seconds spent compiling before the first image.
        loss: Deciding metric as a loss, noise floor taken off; 0 is identical.
        fidelity: Every metric against the reference images.
        metric: The deciding metric.
        metric_identity: The weights or constants behind it; values of others are not comparable.
        noise_floor: Loss of the reference against itself under another attention kernel.
        quantized_layers: How many layers of each component are really quantized.
        further_images: How many images of further seeds ``loss`` and ``latency_s`` include, because
            a limit lay within their spread; ``fidelity`` does not.
        stopped: Why not every image was drawn: it could no longer become the plan.
        undrawn_images: How many; ``loss`` stands for all images, ``fidelity`` for those drawn.
        loss_scale: What the mean loss of all images is taken to be against that of those drawn.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    weights_gb: float
    component_gb: dict[str, float] = {}
    load_peak_gb: float
    peak_gb: float
    counter: str
    other_counters_gb: dict[str, float] = {}
    ram_gb: float | None = None
    latency_s: LatencySummary
    compile_s: float = 0.0
    loss: float
    fidelity: dict[str, MetricScore]
    metric: str
    metric_identity: str = ""
    noise_floor: float
    quantized_layers: dict[str, int] = {}
    further_images: int = 0
    stopped: str = ""
    undrawn_images: int = 0
    loss_scale: float = 1.0

    @property
    def is_whole(self) -> bool:
        """Whether every image of the workload was drawn."""
        return self.undrawn_images == 0


class Comparison(BaseModel):
    """How close a candidate comes on some workload, drawn as it will run; no memory is counted.

    Attributes:
        component_gb: Bytes held by each component, in GiB.
        loss: Deciding metric as a loss, noise floor taken off; 0 is identical.
        fidelity: Every metric against the reference images of that workload.
        metric: The deciding metric.
        noise_floor: Loss of the reference against itself on that workload.
        seconds: Wall seconds of each pipeline call but the first, which warms up; none where it was
            not timed.
        compile_s: Seconds that compiling took.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    component_gb: dict[str, float]
    loss: float
    fidelity: dict[str, MetricScore]
    metric: str
    noise_floor: float
    seconds: tuple[float, ...] = ()
    compile_s: float = 0.0


def image_losses(measured: Measured | Comparison) -> tuple[float, ...]:
    """The deciding loss of each image that was drawn, the noise floor still in it."""
    return losses_of(measured.metric, measured.fidelity[measured.metric])


def seconds_a_call(measured: Measured, calls_per_session: float | None) -> float:
    """Median wall seconds, with a share of the time for compiling where a session is stated."""
    return measured.latency_s.median + _compile_share(measured, calls_per_session)


def in_session(measured: Measured, calls_per_session: float | None) -> Measured:
    """``measured`` with the time for compiling spread over the calls of a session."""
    share = _compile_share(measured, calls_per_session)
    if share == 0:
        return measured
    summary = measured.latency_s
    slower = {name: getattr(summary, name) + share for name in ("median", "low", "high")}
    return measured.model_copy(update={"latency_s": summary.model_copy(update=slower)})


def _compile_share(measured: Measured, calls_per_session: float | None) -> float:
    return 0.0 if calls_per_session is None else measured.compile_s / calls_per_session


class ComponentFacts(BaseModel):
    """What a loader needs of one component.

    Attributes:
        library: Where its class can be imported from.
        class_name: The class.
        kept_layers: The Linear modules that are left as they are.
        overridden: Layers of another scheme than the component's, by scheme.
    """

    model_config = ConfigDict(frozen=True)

    library: str
    class_name: str
    kept_layers: tuple[str, ...]
    overridden: dict[str, tuple[str, ...]] = {}


class Answer(BaseModel):
    """A measurement, and what its components are made of."""

    model_config = ConfigDict(frozen=True)

    measured: Measured
    components: dict[str, ComponentFacts]


class Prediction(BaseModel):
    """What a candidate was expected to cost before it was measured; ``sd`` is a standard deviation.

    Attributes:
        loss: Deciding metric as a loss, noise floor taken off.
        log_loss_sd: Of the logarithm of the loss before the noise floor was taken off.
        peak_gb: Most memory in a call, in GiB.
        latency_s: Wall seconds of a call, with its share of compiling where a session is stated.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    loss: float
    log_loss_sd: float
    peak_gb: float
    peak_gb_sd: float
    latency_s: float
    latency_s_sd: float


class Estimate(BaseModel):
    """What one choice should do to its component, all others untouched, from cheaper measurements.

    Attributes:
        component_gb: What the component holds, in GiB.
        component_gb_sd: How far that may be off, as a standard deviation.
        loss: Deciding metric as a loss, noise floor taken off.
        log_loss_sd: How far the logarithm of the loss may be off.
    """

    model_config = ConfigDict(frozen=True)

    component: str
    choice: Choice
    component_gb: float
    component_gb_sd: float = 0.0
    loss: float
    log_loss_sd: float


class Trial(BaseModel):
    """One candidate that the search tried: what was measured, or why it could not be.

    Attributes:
        predicted: What the search expected of it, where it expected anything.
        bound_gb: For a candidate that was never loaded, the peak in GiB that it would at least
            have had, more than the budget allows; after an out of memory, what was not enough.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    number: int
    candidate: Candidate
    measured: Measured | None = None
    failure: str | None = None
    predicted: Prediction | None = None
    bound_gb: float | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether it is being measured elsewhere."""
        return self.measured is None and self.failure is None and self.bound_gb is None
