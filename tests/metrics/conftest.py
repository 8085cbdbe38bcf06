"""Pictures, and an accelerator that is not there."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pynvml
import pytest
import torch

from autoquant.metrics.images import Images

PROMPTS = ["a red circle", "a green square", "a blue field"]


@pytest.fixture(scope="session")
def pictures() -> Images:
    """Three smooth pictures of 64x64 pixels that stay clear of the ends of [0, 1]."""
    y, x = np.mgrid[0:64, 0:64] / 63
    return np.stack(
        [
            np.stack([0.3 + 0.4 * x, 0.3 + 0.4 * y, np.full_like(x, 0.5 + 0.1 * index)], axis=-1)
            + 0.1 * np.sin(8 * (index + 1) * (x + y))[..., None]
            for index in range(3)
        ]
    ).astype(np.float32)


@pytest.fixture(scope="session")
def noisy(pictures: Images) -> Callable[[float], Images]:
    """The pictures with one noise pattern of a chosen strength."""
    noise = np.random.default_rng(0).normal(size=pictures.shape).astype(np.float32)
    return lambda strength: np.clip(pictures + strength * noise, 0, 1).astype(np.float32)


class FakeAccelerator:
    """Stands in for two CUDA cards; refuses calls that the real functions would not take.

    Attributes:
        calls: Names of the calls made, in order.
        current: Index of the current card.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.current = 0
        self._monkeypatch = monkeypatch
        answers: dict[str, Any] = {
            "is_available": True,
            "current_accelerator": torch.device("cuda"),
            "current_device_index": 0,
            "device_count": 2,
            "synchronize": None,
            "empty_cache": None,
            "empty_host_cache": None,
            "reset_peak_memory_stats": None,
            "max_memory_reserved": 3000,
            "max_memory_allocated": 2000,
            "memory_reserved": 1000,
            "memory_allocated": 800,
            "get_memory_info": (20 * 2**30, 24 * 2**30),
        }
        for name, answer in answers.items():
            if hasattr(torch.accelerator, name):  # some came after the oldest torch that we take
                self._replace(torch.accelerator, name, answer)
        monkeypatch.setattr(torch._C, "_accelerator_exchangeDevice", self._exchange)
        monkeypatch.setattr(torch._C, "_accelerator_maybeExchangeDevice", self._exchange)
        properties = SimpleNamespace(name="NVIDIA L4", total_memory=24 * 2**30)
        self._replace(torch.cuda, "get_device_properties", properties)
        self._replace(torch.cuda, "device_memory_used", 5000)
        self._replace(pynvml, "nvmlInit", None)
        self._replace(pynvml, "nvmlSystemGetDriverVersion", "580.1")

    def _exchange(self, index: int) -> int:
        before, self.current = self.current, index
        return before

    def _replace(self, module: Any, name: str, answer: Any) -> None:
        signature = inspect.signature(getattr(module, name))

        def answering(*args: Any, **kwargs: Any) -> Any:
            signature.bind(*args, **kwargs)
            self.calls.append(name)
            return answer

        self._monkeypatch.setattr(module, name, answering)


@pytest.fixture
def fake_accelerator(monkeypatch: pytest.MonkeyPatch) -> FakeAccelerator:
    return FakeAccelerator(monkeypatch)
