"""The errors that autoquant raises.

AutoquantError
├── InputError            what was asked for is wrong; the message says what to do   (exit 2)
│   ├── UnsupportedPipeline   the model is no diffusers text-to-image pipeline
│   ├── BackendUnavailable    a backend is not installed or not able on this device
│   ├── MetricUnavailable     a metric is unknown or its weights cannot be had
│   ├── SpaceFileError        a space file that does not fit; a line for each fault
│   ├── StudyDiffers          a study directory of another model, workload, device or version
│   ├── StudyInUse            a study directory in which another run is measuring
│   └── PlanFormatError       a plan.json that cannot be trusted
├── InfeasibleBudget      nothing measured fits the budget                           (exit 3)
├── SearchInterrupted     Ctrl-C came before anything fitted the budget              (exit 4)
├── WorkerFailed          the process that measures died or hung                     (exit 1)
│   └── WorkerKilled          it was killed from outside, which is no fault of a candidate
└── CandidateFailed       one candidate could not be measured: a recorded failure
    ├── MeasuredElsewhere     another process is measuring it; nothing went wrong
    ├── OutOfMemory           it needs more memory than there is; proves a bound
    ├── QuantizationMismatch  what was quantized is not what was asked for
    └── DegenerateImage       an image is not finite, constant or black
"""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The first line of another library's message, or the error's class if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class AutoquantError(Exception):
    """Root of every error that autoquant raises on purpose."""


class InputError(AutoquantError, ValueError):
    """An argument, file or model that cannot be used as given."""


class UnsupportedPipeline(InputError):
    """The model is not a diffusers pipeline that can be planned."""


class BackendUnavailable(InputError):
    """A quantization backend that is missing, or cannot run on this device."""


class MetricUnavailable(InputError):
    """A fidelity metric that is unknown, or whose weights cannot be had."""


class PlanFormatError(InputError):
    """A plan file that is damaged, newer than this version, or inconsistent."""


class SpaceFileError(InputError):
    """A user's space file that is wrong, or does not fit the pipeline: one line for each fault."""


class StudyDiffers(InputError):
    """A study directory that was made of something else; the message names the differences."""


class StudyInUse(InputError):
    """A study directory in which another run is measuring."""


class InfeasibleBudget(AutoquantError):
    """Nothing that was measured satisfies the budget."""


class SearchInterrupted(AutoquantError):
    """The search was interrupted before any candidate fitted the budget."""


class WorkerFailed(AutoquantError):
    """The process that measures died, or did not answer in time."""


class WorkerKilled(WorkerFailed):
    """The process that measures was killed by another one."""


class CandidateFailed(AutoquantError):
    """One candidate could not be measured; the study records the reason and goes on.

    Attributes:
        bound_gb: Memory in GiB that was not enough, where that is the reason.
    """

    def __init__(self, reason: str, bound_gb: float | None = None) -> None:
        super().__init__(reason)
        self.bound_gb = bound_gb


class MeasuredElsewhere(CandidateFailed):
    """Another process is measuring the candidate, so that it is not measured here now."""


class OutOfMemory(CandidateFailed):
    """A candidate that needs more memory than there is."""


class QuantizationMismatch(CandidateFailed):
    """The layers that are really quantized differ from the ones asked for."""


class DegenerateImage(CandidateFailed):
    """A candidate drew an image that is not finite, constant or black."""
