"""Carry out ``emit``: check the plan against this machine, ask the emitter, write its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autoquant.errors import BackendUnavailable, InputError
from autoquant.files import write_text
from autoquant.planner.emit.base import Verdict, verdict_on
from autoquant.planner.emit.layout import read_layout
from autoquant.planner.emit.registry import emitter
from autoquant.planner.output import OutputDirectory

if TYPE_CHECKING:
    from autoquant.planner.plan import Plan


@dataclass(frozen=True)
class Emitted:
    """What was written.

    Attributes:
        target: The emitter's name.
        directory: Where.
        files: Relative paths.
        verdict: What the files carry, and what they lose.
        next_step: What to do with them.
    """

    target: str
    directory: Path
    files: tuple[str, ...]
    verdict: Verdict
    next_step: str


def emit_plan(
    plan: Plan,
    target: str,
    directory: Path,
    *,
    source: str | None = None,
    force: bool = False,
    overwrite: bool = False,
) -> Emitted:
    """Write ``plan`` for another tool.

    Args:
        plan: The plan.
        target: Name of the emitter.
        directory: Where the files go, put in place whole.
        source: Directory or hub id of the pipeline, if it has moved.
        force: Whether to go on although other versions are installed than were measured.
        overwrite: Whether to replace what ``directory`` holds.

    Raises:
        InputError: The target is unknown or cannot express the plan, the directory holds files,
            versions differ, or the pipeline cannot be found.
    """
    chosen = emitter(target)
    if not force:
        require_same_versions(plan)
    with OutputDirectory(directory, overwrite=overwrite) as output:
        layout = read_layout(plan, source)
        verdict = verdict_on(plan, layout, chosen)
        if verdict.impossible is not None:
            raise InputError(f"{chosen.name} cannot carry this plan: {verdict.impossible}")
        files = chosen.files(plan, layout)
        for name, text in files.items():
            write_text(output.partial / name, text)
        output.commit()
    return Emitted(chosen.name, directory, tuple(files), verdict, chosen.next_step(files))


def require_same_versions(plan: Plan) -> None:
    """Check that what is installed is what the plan was measured with.

    Raises:
        InputError: A recorded package is missing or has another version; names them all.
    """
    from autoquant.metrics.device import package_versions

    installed = package_versions()
    differences = [
        f"{name} {installed.get(name, 'is not installed')} (planned with {recorded})"
        for name, recorded in plan.versions.items()
        if _public(installed.get(name, "")) != _public(recorded)
    ]
    if differences:
        raise InputError(
            f"The plan was measured with other versions: {', '.join(differences)}. Install those, "
            "measure again, or pass --force (force=True) to go on all the same."
        )


def require_no_adapters(plan: Plan) -> None:
    """Check that the plan is one of the pipeline's own weights alone.

    Raises:
        BackendUnavailable: It was measured with LoRA adapters.
    """
    names = ", ".join(dict.fromkeys(adapter.name for adapter in plan.adapters))
    if names:
        raise BackendUnavailable(
            f"The plan was measured with the LoRA adapters {names}, which a checkpoint does not "
            "hold: use the loader script, autoquant emit PLAN --to diffusers."
        )


def _public(version: str) -> str:
    # What follows "+" tells builds apart ("2.9.0+cu128"), not releases.
    return version.partition("+")[0]
