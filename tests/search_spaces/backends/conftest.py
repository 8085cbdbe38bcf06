"""Every scheme of every backend, and models quantized by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from autoquant.search_spaces import backends
from autoquant.search_spaces.quantize import QuantizedLayers, apply_choice
from autoquant.search_spaces.scheme import Choice


@dataclass(frozen=True)
class Quantized:
    """A quantized model, what was done to it, and its output."""

    module: Any
    result: QuantizedLayers
    output: torch.Tensor


@pytest.fixture(scope="session")
def quantized_cache() -> dict[tuple[str, Choice], Quantized]:
    return {}


@pytest.fixture
def quantized(
    build: Callable[[str], Any],
    run: Callable[[str, Any], torch.Tensor],
    quantized_cache: dict[tuple[str, Choice], Quantized],
) -> Callable[..., Quantized]:
    """Quantize the named model by a scheme; the same model is made once a session."""

    def make(model: str, scheme: str, **options: Any) -> Quantized:
        choice = Choice(scheme=scheme, **options)
        reason = backends.backend(scheme.split(":")[0]).unavailable(scheme.split(":")[1], "cpu")
        if reason is not None:
            pytest.skip(reason)
        if (model, choice) not in quantized_cache:
            module = build(model)
            result = apply_choice(module, choice, torch.bfloat16)
            quantized_cache[model, choice] = Quantized(module, result, run(model, module))
        return quantized_cache[model, choice]

    return make
