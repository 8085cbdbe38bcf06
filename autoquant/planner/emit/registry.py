"""The targets that a plan can be emitted to, built in or brought by another package."""

from __future__ import annotations

import difflib
import importlib.metadata

from autoquant.errors import InputError
from autoquant.planner.emit.base import Emitter
from autoquant.planner.emit.cache_dit import CacheDit
from autoquant.planner.emit.comfyui import ComfyUi
from autoquant.planner.emit.diffusers_config import DiffusersConfig
from autoquant.planner.emit.diffusers_script import DiffusersScript
from autoquant.planner.emit.onetrainer import OneTrainer
from autoquant.planner.emit.sdnext import SdNext
from autoquant.planner.emit.sglang import Sglang
from autoquant.planner.emit.simpletuner import SimpleTuner
from autoquant.planner.emit.stable_diffusion_cpp import StableDiffusionCpp
from autoquant.planner.emit.vllm_omni import VllmOmni

ENTRY_POINTS = "autoquant.emitters"
"""Entry point group of other packages' emitters; each entry is a class without arguments."""

_BUILT_IN: tuple[type[Emitter], ...] = (
    DiffusersScript,
    DiffusersConfig,
    ComfyUi,
    Sglang,
    CacheDit,
    VllmOmni,
    StableDiffusionCpp,
    SdNext,
    SimpleTuner,
    OneTrainer,
)


def emitters() -> dict[str, Emitter]:
    """Every known emitter by name, the built-in ones first.

    Raises:
        InputError: Another package's emitter cannot be loaded, or takes a name in use.
    """
    known: dict[str, Emitter] = {}
    for built_in in _BUILT_IN:
        instance = built_in()
        known[instance.name] = instance
    for entry_point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        instance = _load(entry_point)
        if instance.name in known:
            raise InputError(
                f"The target name {instance.name!r} of {entry_point.value} is taken already: "
                "uninstall the package that brings it, or ask its author to rename it."
            )
        known[instance.name] = instance
    return known


def emitter(name: str) -> Emitter:
    """The emitter called ``name``.

    Raises:
        InputError: There is none; names the closest known ones.
    """
    known = emitters()
    if name not in known:
        closest = difflib.get_close_matches(name.lower(), known, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(closest)}?" if closest else "it is like no known one."
        raise InputError(f"There is no target {name!r}; {hint} Known targets: {', '.join(known)}.")
    return known[name]


def _load(entry_point: importlib.metadata.EntryPoint) -> Emitter:
    try:
        factory = entry_point.load()
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"The target {entry_point.name!r} ({entry_point.value}) cannot be loaded: {error}. "
            "Repair or uninstall the package that brings it."
        ) from error
    instance: Emitter = factory()
    return instance
