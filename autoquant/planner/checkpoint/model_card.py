"""The model card of a quantized checkpoint: what was done, what was measured, how to load it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from autoquant.planner.candidate import choice_label
from autoquant.planner.plan import Plan
from autoquant.planner.quantities import gigabytes, seconds

_REQUIREMENTS = {"bitsandbytes": "bitsandbytes", "torchao": "torchao", "quanto": "optimum-quanto"}


def model_card(plan: Plan, base_model: str | None, licence: Mapping[str, Any]) -> str:
    """The text of ``README.md``.

    Args:
        plan: What was carried out.
        base_model: Hub id of the original, if it has one.
        licence: The original card's licence entries.
    """
    front: dict[str, Any] = {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["autoquant", "quantized"],
        **licence,
    }
    if base_model is not None:
        front |= {"base_model": base_model, "base_model_relation": "quantized"}
    original = (
        f"[{base_model}](https://huggingface.co/{base_model})" if base_model else "a local pipeline"
    )
    sections = [
        f"---\n{yaml.safe_dump(front, sort_keys=False).strip()}\n---",
        f"# {plan.pipeline.class_name}, quantized",
        f"Made from {original}: its components are quantized as planned and measured by autoquant "
        f"{plan.autoquant}. `plan.json` is the whole record.",
        "## Loading\n\n" + _loading(plan),
        "## What was quantized\n\n" + "\n".join(_components(plan)),
        "## Measured\n\n" + "\n".join(_figures(plan)),
        "## Versions\n\n"
        + "\n".join(f"- {name} {version}" for name, version in plan.versions.items()),
    ]
    if licence or base_model:
        sections.append(f"## Licence\n\nThat of {original}; its licence files are in this folder.")
    return "\n\n".join(sections) + "\n"


def _loading(plan: Plan) -> str:
    backends = {part.scheme.partition(":")[0] for part in plan.components.values()}
    packages = ["diffusers", "transformers", "accelerate"]
    packages += sorted(_REQUIREMENTS[name] for name in backends if name in _REQUIREMENTS)
    return f"""```
pip install {" ".join(packages)}
```

```python
import torch
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("PATH", dtype=torch.{plan.runtime.compute_dtype})
pipeline.to("cuda")
```{_levers(plan)}"""


def _levers(plan: Plan) -> str:
    if not plan.runtime.label:
        return ""
    return (
        f"\n\nThe figures below were measured with {plan.runtime.label}, which no checkpoint "
        "holds: `autoquant emit plan.json --to diffusers` writes a script that sets it."
    )


def _components(plan: Plan) -> Iterator[str]:
    yield "| component | stored as | layers quantized | kept as they were |"
    yield "|---|---|---|---|"
    for name, part in plan.components.items():
        count = plan.measured.quantized_layers.get(name, 0)
        kept = ", ".join(f"`{path}`" for path in part.exclusions) or "–"
        stored = choice_label(part.choice.model_copy(update={"exclusions": ()}))
        yield f"| {name} | {stored} | {count} | {kept} |"
    yield ""
    yield f"Everything else is {plan.runtime.compute_dtype}."


def _figures(plan: Plan) -> Iterator[str]:
    measured, reference, work = plan.measured, plan.reference, plan.workload
    yield (
        f"On {plan.device.name}, {work.width}×{work.height}, {work.steps} steps, "
        f"{len(work.samples)} images, against the same pipeline unquantized:\n"
    )
    yield "| | quantized | unquantized |"
    yield "|---|---|---|"
    yield f"| weights | {gigabytes(measured.weights_gb)} | {gigabytes(reference.weights_gb)} |"
    yield (
        f"| peak of a call ({measured.counter}) | {gigabytes(measured.peak_gb)} "
        f"| {gigabytes(reference.peak_gb)} |"
    )
    yield (
        f"| seconds a call (median) | {seconds(measured.latency_s.median)} "
        f"| {seconds(reference.latency_s)} |"
    )
    for name, score in measured.fidelity.items():
        # One image has no interval.
        interval = "" if score.low is None else f" ({score.low:.4g} to {score.high:.4g})"
        yield f"| {name}, mean (95 % interval) | {score.mean:.4g}{interval} | |"
    yield (
        f"\n{measured.metric} decided: a loss of {measured.loss:.4g} after the noise floor of "
        f"{measured.noise_floor:.2g} was taken off."
    )
