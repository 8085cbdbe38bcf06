"""What a run left in its directory: the plan, pairs of images, the loader script."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoquant.errors import InputError, PlanFormatError
from autoquant.metrics.images import Images, load_png
from autoquant.planner.candidate_images import FOLDER, folder_name, other_candidates
from autoquant.planner.plan import Plan

PLAN_NAME = "plan.json"
SCRIPT_NAME = "load_pipeline.py"
_LARGEST = 1e12


@dataclass(frozen=True)
class ImagePair:
    """One sample drawn by the unquantized pipeline and as planned.

    Attributes:
        index: Which sample of the workload; scores are in the same order.
        prompt: What was asked for.
        seed: Seed of the sample.
        reference: PNG of the unquantized pipeline.
        planned: PNG of the plan.
    """

    index: int
    prompt: str
    seed: int
    reference: Path
    planned: Path

    @property
    def stored_bytes(self) -> int:
        """Size of both files."""
        return self.reference.stat().st_size + self.planned.stat().st_size

    def load(self) -> Images:
        """Both images, the reference first.

        Raises:
            InputError: One is missing, no image, or the sizes differ.
        """
        return load_png([self.reference, self.planned])


@dataclass(frozen=True)
class CandidateImages:
    """What another candidate drew: its place in the Pareto set, and a pair for each sample.

    The files of single images may be missing.
    """

    place: int
    pairs: tuple[ImagePair, ...]

    @property
    def stored_bytes(self) -> int:
        """Size of its own files."""
        drawn = (pair.planned for pair in self.pairs)
        return sum(path.stat().st_size for path in drawn if path.is_file())


@dataclass(frozen=True)
class Evidence:
    """The content of a run's directory.

    Attributes:
        plan: The plan.
        pairs: The image pairs whose files are there.
        candidates: What the rest of the Pareto set drew, what keeps the budget and loses least
            first.
        absent: Names of the image files that are not there, relative to the directory.
        script: Text of the loader script, if it is there.
    """

    plan: Plan
    pairs: tuple[ImagePair, ...]
    candidates: tuple[CandidateImages, ...]
    absent: tuple[str, ...]
    script: str | None


def read_evidence(directory: Path) -> Evidence:
    """Read a directory that ``autoquant suggest`` wrote; images may be missing.

    Raises:
        InputError: ``directory`` is none, or holds no plan.
        PlanFormatError: The plan is damaged.
    """
    if not directory.is_dir():
        raise InputError(f"No directory {directory}; pass one that 'autoquant suggest' wrote.")
    plan_path = directory / PLAN_NAME
    if not plan_path.is_file():
        raise InputError(
            f"{directory} holds no {PLAN_NAME}; pass a directory that 'autoquant suggest' wrote."
        )
    plan = Plan.load_json(plan_path)
    _require_figures(plan, plan_path)
    images = directory / "images"
    every = _pairs(plan, images / "reference", images / "planned")
    files = [path for pair in every for path in (pair.reference, pair.planned)]
    absent = {path for path in files if not path.is_file()}
    return Evidence(
        plan=plan,
        pairs=tuple(pair for pair in every if absent.isdisjoint({pair.reference, pair.planned})),
        candidates=tuple(_candidates(plan, directory)),
        absent=tuple(str(path.relative_to(directory)) for path in files if path in absent),
        script=_script(directory / SCRIPT_NAME),
    )


def _require_figures(plan: Plan, path: Path) -> None:
    """A plan that was edited can hold numbers that no plot can show."""
    # Scores may be negative, and are checked to be finite when they are read.
    parts = [plan.budget, plan.reference, plan.measured, *(point.measured for point in plan.pareto)]
    for part in parts:
        for name, value in _numbers(part.model_dump(exclude={"fidelity"})):
            if not (math.isfinite(value) and 0 <= value < _LARGEST):
                raise PlanFormatError(
                    f"{path}: {name} is {value:g}, which no plot can show; run "
                    "'autoquant suggest' again."
                )


def _numbers(entries: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in entries.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", number) for inner, number in _numbers(value))
        elif isinstance(value, int | float):
            yield name, value


def _candidates(plan: Plan, directory: Path) -> Iterator[CandidateImages]:
    for place, candidate in other_candidates(plan):
        drawn = directory / FOLDER / folder_name(candidate)
        if drawn.is_dir():
            pairs = _pairs(plan, directory / "images" / "reference", drawn)
            yield CandidateImages(place, tuple(pairs))


def _pairs(plan: Plan, reference: Path, planned: Path) -> list[ImagePair]:
    return [
        ImagePair(
            index=index,
            prompt=sample.prompt,
            seed=sample.seed,
            reference=reference / f"{index:04d}.png",
            planned=planned / f"{index:04d}.png",
        )
        for index, sample in enumerate(plan.workload.samples)
    ]


def _script(path: Path) -> str | None:
    if not path.is_file():
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Cannot read the loader script {path}: {error}.") from error
