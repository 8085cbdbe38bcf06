"""The targets that a plan can be emitted to, built in or brought by another package."""

from __future__ import annotations

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
from autoquant.registry import Registry

ENTRY_POINTS = "autoquant.emitters"
"""Entry point group of other packages' emitters; each entry is a class without arguments."""

_REGISTRY: Registry[Emitter] = Registry(
    kind="target",
    entry_points=ENTRY_POINTS,
    built_in=(
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
    ),
)


def emitters() -> dict[str, Emitter]:
    """Every known emitter by name, the built-in ones first.

    Raises:
        InputError: Another package's emitter cannot be loaded, or takes a name in use.
    """
    return _REGISTRY.all()


def emitter(name: str) -> Emitter:
    """The emitter called ``name``.

    Raises:
        InputError: There is none; names the closest known ones.
    """
    return _REGISTRY.get(name)
