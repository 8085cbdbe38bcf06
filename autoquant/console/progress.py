"""Show a run while it works: a live bar on a terminal, plain lines in a pipe."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from autoquant.planner.measurement import Trial
from autoquant.planner.progress import Progress
from autoquant.planner.quantities import gigabytes, loss_text, seconds

_PHASES = {
    "reference": "Loading the pipeline and drawing the reference images",
    "search": "Measuring candidates",
    "recheck": "Measuring again with further seeds what a limit decides by less than its spread",
    "confirmation": "Drawing prompts that the search never saw",
    "done": "Done",
}


class ProgressDisplay:
    """Call it with each ``Progress``; use it as a context manager around the run."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        if console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[best]}"),
                console=console,
                transient=True,
            )

    def __enter__(self) -> ProgressDisplay:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        if self._bar is not None:
            self._update_bar(self._bar, progress)
        elif progress.trial is not None:
            self._console.print(_line(progress), highlight=False, soft_wrap=True)
        elif progress.phase in {"reference", "recheck", "confirmation"}:
            self._console.print(f"{_PHASES[progress.phase]} …", highlight=False)

    def _update_bar(self, bar: Bar, progress: Progress) -> None:
        left = "" if progress.seconds_left is None else f"{seconds(progress.seconds_left)} left"
        shown: dict[str, Any] = {
            "description": _PHASES[progress.phase],
            "completed": progress.done,
            "total": progress.total or None,
            "left": left,
            "best": _best(progress.best),
        }
        if self._task is None:
            self._task = bar.add_task(**shown)
        else:
            bar.update(self._task, **shown)


def _line(progress: Progress) -> str:
    trial = progress.trial
    assert trial is not None
    head = f"[{progress.done}/{progress.total}]"
    if trial.measured is None:
        text = f"{head} failed: {trial.failure} ({trial.candidate.label})"
    else:
        is_estimate = not trial.measured.is_whole
        loss = loss_text(trial.measured.loss, is_estimate=is_estimate)
        text = (
            f"{head} loss {loss}, {gigabytes(trial.measured.peak_gb)}, "
            f"{seconds(trial.measured.latency_s.median)}: {trial.candidate.label}"
        )
        if is_estimate:
            text += f" (stopped early: {trial.measured.stopped})"
    if progress.seconds_left is not None:
        text += f" | {_best(progress.best)} | {seconds(progress.seconds_left)} left"
    # Square brackets are markup to rich.
    return text.replace("[", r"\[")


def _best(best: Trial | None) -> str:
    if best is None or best.measured is None:
        return "nothing fits yet"
    return f"best: loss {best.measured.loss:.4g} in {gigabytes(best.measured.peak_gb)}"
