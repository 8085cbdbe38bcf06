"""Write what a run hands over: the plan, the loader script, and the images."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from autoquant.files import write_text
from autoquant.planner.candidate_images import keep_images
from autoquant.planner.emit.loader_script import SCRIPT_NAME, loader_script
from autoquant.planner.measurement import ComponentFacts
from autoquant.planner.plan import Plan
from autoquant.planner.report import write_report
from autoquant.planner.source import DEMO, IN_MEMORY, local_directory, without_home


@dataclass(frozen=True)
class Planned:
    """A plan with what is needed to hand it over.

    Attributes:
        plan: The plan.
        reference_images: Directory of the unquantized pipeline's images.
        images: Directory of the same samples drawn by the chosen candidate.
        candidate_images: Holds such a directory for each measured candidate, named by its digest.
        components: Class and untouched layers of each component.
    """

    plan: Plan
    reference_images: Path
    images: Path
    candidate_images: Path
    components: dict[str, ComponentFacts]


def deliver(planned: Planned, directory: Path) -> None:
    """Write the plan, the loader script, the images and the report into ``directory``."""
    plan = planned.plan
    script = loader_script(
        plan,
        _source_for_script(plan),
        component_classes={
            name: (facts.library, facts.class_name) for name, facts in planned.components.items()
        },
        kept_layers={name: facts.kept_layers for name, facts in planned.components.items()},
        overridden={name: facts.overridden for name, facts in planned.components.items()},
    )
    shutil.copytree(planned.reference_images, directory / "images" / "reference")
    shutil.copytree(planned.images, directory / "images" / "planned")
    keep_images(plan, planned.candidate_images, directory)
    write_text(directory / SCRIPT_NAME, script)
    plan.save(directory / "plan.json")
    write_report(directory)


def _source_for_script(plan: Plan) -> str:
    """The script runs without autoquant, so the demo is named by its directory."""
    location = plan.pipeline.source
    if location == IN_MEMORY:
        return ""
    if location == DEMO:
        return without_home(local_directory(plan.pipeline.as_source()))
    return location
