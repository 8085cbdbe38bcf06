"""A backend that goes wrong in every way, to be registered like any other package's."""

from collections.abc import Mapping
from typing import Any

from autoquant.search_spaces.backends.base import Recipe
from autoquant.search_spaces.backends.layerwise import Layerwise


class Saboteur:
    name = "saboteur"
    # One width each, so that the search opens with every fault.
    precisions: Mapping[str, float] = {
        "crash11": 8.0,
        "hang12": 8.0,
        "untouched13": 8.0,
        "nan14": 8.0,
        "memory15": 8.0,
        "bug16": 8.0,
    }

    def unavailable(self, precision: str, device_type: str) -> str | None:
        return None

    def quantizable_layers(self, module: Any, precision: str) -> tuple[str, ...]:
        return Layerwise().quantizable_layers(module, "float8_e4m3fn")

    def recipe(self, precision: str) -> Recipe:
        return Recipe(go_wrong, {"how": precision})


def go_wrong(module: Any, layers: tuple[str, ...], *, how: str) -> None:
    import os
    import signal
    import time

    import torch
    from diffusers.hooks import apply_layerwise_casting

    if how == "crash11":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "hang12":
        time.sleep(3600)
    if how == "memory15":
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")
    if how == "bug16":
        raise KeyError("no such kernel")
    if how == "nan14":
        for path in layers:
            layer = module.get_submodule(path)
            layer.weight.fill_(float("nan"))
            apply_layerwise_casting(
                layer, torch.float8_e4m3fn, layer.weight.dtype, skip_modules_pattern=None
            )
