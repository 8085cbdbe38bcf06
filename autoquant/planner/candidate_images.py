"""The images of the Pareto set: what a run keeps of them, and where."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from autoquant.planner.candidate import Candidate
from autoquant.planner.plan import Plan

FOLDER = Path("images", "candidates")
"""Below a run's directory; the chosen and the unquantized images have folders of their own."""

LARGEST_BYTES = 256 * 2**20
"""What is kept of all candidates together. A 1024-pixel PNG has about 1.5 MiB."""

_LONGEST_NAME = 60


def folder_name(candidate: Candidate) -> str:
    """What a person calls the candidate, and enough of its digest to tell it from others."""
    words = re.sub(r"[^A-Za-z0-9_.]+", "-", candidate.label).strip("-.")
    return f"{words[:_LONGEST_NAME].rstrip('-.')}-{candidate.digest[:8]}"


def other_candidates(plan: Plan) -> Iterator[tuple[int, Candidate]]:
    """The Pareto set without the chosen and the unquantized candidate, with their places in it.

    What keeps the budget comes first, and among those what loses least.
    """
    by_merit = sorted(
        enumerate(plan.pareto), key=lambda item: (not item[1].feasible, item[1].measured.loss)
    )
    for place, point in by_merit:
        if not point.chosen and point is not plan.reference_point:
            yield place, Candidate(components=point.components, runtime=point.runtime)


def keep_images(plan: Plan, images: Path, directory: Path) -> None:
    """Copy the images of the Pareto set into a run's directory, as many as ``LARGEST_BYTES`` holds.

    Args:
        plan: The plan of the run.
        images: Holds a folder for each measured candidate, named by ``Candidate.digest``.
        directory: Where the run is handed over.
    """
    left = LARGEST_BYTES
    for _, candidate in other_candidates(plan):
        source = images / candidate.digest
        size = sum(path.stat().st_size for path in source.glob("*.png"))
        if 0 < size <= left:
            shutil.copytree(source, directory / FOLDER / folder_name(candidate))
            left -= size
