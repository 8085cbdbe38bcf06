"""A backend that goes wrong in every way, to be registered like any other package's."""

from collections.abc import Mapping
from typing import Any

from autoquant.search_spaces.backends.base import Recipe
from autoquant.search_spaces.backends.layerwise import Layerwise


class Saboteur:
    name = "saboteur"
    precisions: Mapping[str, float] = {
        "crash": 8.0,
        "untouched": 8.0,
        "nan": 8.0,
        "memory": 8.0,
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

    import torch
    from diffusers.hooks import apply_layerwise_casting

    if how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "memory":
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")
    if how == "nan":
        for path in layers:
            layer = module.get_submodule(path)
            layer.weight.fill_(float("nan"))
            apply_layerwise_casting(
                layer, torch.float8_e4m3fn, layer.weight.dtype, skip_modules_pattern=None
            )
