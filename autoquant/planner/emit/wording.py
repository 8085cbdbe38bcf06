"""What emitters say in the same words, and how it is put into a file."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoquant.planner.plan import Plan, PlannedComponent

_NAMED = 3


def origin(plan: Plan) -> str:
    """Where a file comes from, and what was measured."""
    versions = ", ".join(f"{name} {version}" for name, version in plan.versions.items())
    measured = plan.measured
    return (
        f"Made by autoquant {plan.autoquant} from a plan for {plan.pipeline.class_name}, measured "
        f"on {plan.device.name}: {measured.peak_gb:.3f} GB peak ({measured.counter}), "
        f"{measured.latency_s.median:.3g} s a call, {measured.metric} loss {measured.loss:.4g}, "
        f"with {versions}."
    )


def layers(paths: Sequence[str]) -> str:
    """Some of ``paths`` by name, and how many there are."""
    named = ", ".join(paths[:_NAMED])
    rest = len(paths) - _NAMED
    return f"{named} and {rest} more" if rest > 0 else named


def beyond_the_plan(component: str, also_kept: Sequence[str]) -> list[str]:
    """What to say of layers that a loader keeps although the plan quantizes them."""
    if not also_kept:
        return []
    return [
        f"{component}: {layers(also_kept)} stay unquantized too, because the loader cannot tell "
        "them from layers that are kept; more memory than measured"
    ]


def untold_settings(plan: Plan, tool: str, told: Collection[str] = ()) -> list[str]:
    """What to say of the plan's runtime settings that a file for ``tool`` does not hold.

    Args:
        plan: The plan.
        tool: What people call it.
        told: Names of the levers that its file does hold.
    """
    runtime = plan.runtime
    defaults = type(runtime)()
    return [
        f"{name} {getattr(runtime, name)}: {tool} is not told of it, set it there yourself; memory "
        "and latency were measured with it"
        for name in type(runtime).model_fields
        if name not in {"compute_dtype", *told}
        and getattr(runtime, name) != getattr(defaults, name)
    ]


def yaml_header(plan: Plan, lost: Sequence[str]) -> str:
    """The first lines of a YAML or shell file: where it comes from, and what it loses."""
    comments = [as_comment(origin(plan)), *(as_comment(f"Lost: {loss}.") for loss in lost)]
    return "\n".join(comments) + "\n"


def as_comment(text: str, mark: str = "# ") -> str:
    """``text`` as comment lines; what could end a line or a file is dropped."""
    printable = "".join(c for c in " ".join(text.split()) if c.isprintable())
    return textwrap.fill(printable, 98, initial_indent=mark, subsequent_indent=mark)


def quantized_components(plan: Plan) -> Iterator[tuple[str, PlannedComponent]]:
    """The components that the plan quantizes or fuses."""
    for name, part in plan.components.items():
        if part.scheme != "none" or part.fuse_qkv:
            yield name, part
