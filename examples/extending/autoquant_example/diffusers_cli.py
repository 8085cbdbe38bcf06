"""A target: the command line of ``diffusers-cli run``, which has options for levers only."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

from autoquant.planner.emit.base import Verdict, impossible
from autoquant.planner.emit.layout import Layout
from autoquant.planner.emit.wording import quantized_components, yaml_header

if TYPE_CHECKING:
    from autoquant.planner.plan import Plan

_FILE = "run.sh"
# What a plan calls an offload, and what diffusers-cli 0.42 does.
_OFFLOADS = {"model": "model", "group_block": "group", "group_leaf": "group"}


class DiffusersCli:
    """Nothing quantized, but every lever that the command has an option for."""

    name = "diffusers-cli"
    summary = "a diffusers-cli command; impossible if anything is quantized"

    def carries(self, plan: Plan, layout: Layout) -> Verdict:
        """Impossible if anything is quantized, partial for levers without an option."""
        quantized = [name for name, _ in quantized_components(plan)]
        if quantized:
            return impossible(
                f"diffusers-cli has no option that quantizes {', '.join(quantized)}: write a "
                "checkpoint with `autoquant quantize`, and run that"
            )
        runtime = plan.runtime
        lost = []
        if runtime.offload not in {"none", *_OFFLOADS}:
            lost.append(f"offload {runtime.offload}: diffusers-cli has no option for it")
        if runtime.compile == "regional":
            lost.append("compile regional: diffusers-cli compiles whole denoisers")
        if runtime.attention != "default":
            lost.append(
                f"attention {runtime.attention}: diffusers-cli knows kernels of the hub only"
            )
        return Verdict(lost=tuple(lost))

    def files(self, plan: Plan, layout: Layout) -> Mapping[str, str]:
        """``run.sh``."""
        workload, runtime = plan.workload, plan.runtime
        sample = workload.samples[0]
        call = {
            "prompt": sample.prompt,
            "height": workload.height,
            "width": workload.width,
            "num_inference_steps": workload.steps,
            **workload.call_arguments,
        }
        words = ["diffusers-cli", "run", "--model", layout.source]
        words += ["--dtype", runtime.compute_dtype, "--seed", str(sample.seed)]
        if runtime.offload in _OFFLOADS:
            words += ["--cpu-offload", _OFFLOADS[runtime.offload]]
        words += ["--vae-tiling"] * runtime.vae_tiling + ["--vae-slicing"] * runtime.vae_slicing
        words += ["--compile"] * (runtime.compile != "none")
        words += ["--pipeline-kwargs", json.dumps(call)]
        header = yaml_header(plan, self.carries(plan, layout).lost)
        return {_FILE: f"#!/bin/sh\n{header}{shlex.join(words)}\n"}

    def next_step(self, files: Mapping[str, str]) -> str:
        """How to use it."""
        return f"sh {_FILE}"
