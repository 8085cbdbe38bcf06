"""The card that the tests run on, and pictures small enough for any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from autoquant import demo
from autoquant.metrics.device import (
    compute_capability,
    fingerprint,
    on_device,
    release_memory,
    resolve_device,
)
from autoquant.planner.workload import Workload
from autoquant.search_spaces.backends import backend
from autoquant.search_spaces.usable import forbidden

WORKLOAD = Workload(
    prompts=("a red circle",),
    height=64,
    width=64,
    steps=2,
    call_arguments={"max_sequence_length": 16},
)


@pytest.fixture(scope="session")
def chosen_card(request: pytest.FixtureRequest) -> torch.device:
    """The accelerator, or what ``--card`` names; the CPU only rehearses."""
    asked = request.config.getoption("--card")
    if asked is None and not torch.accelerator.is_available():
        pytest.skip("needs an accelerator")
    return resolve_device(asked)


@pytest.fixture
def card(chosen_card: torch.device) -> Iterator[torch.device]:
    """The card as the current device, with its cache emptied after the test."""
    with on_device(chosen_card):
        yield chosen_card
        release_memory(chosen_card)


@pytest.fixture
def real_card(card: torch.device) -> torch.device:
    if card.type == "cpu":
        pytest.skip("a CPU has no memory of its own")
    return card


@pytest.fixture(scope="session")
def demo_directory() -> Path:
    return demo.pipeline_directory()


@pytest.fixture
def name_the_card(card: torch.device, record_property: Any) -> None:
    found = fingerprint(card)
    record_property("card", f"{found.name}, {found.memory_gb} GB, driver {found.driver}")


def require_usable(scheme: str, device: torch.device) -> None:
    """Skip what the table says of the card, with its reason."""
    name, precision = scheme.split(":")
    reason = backend(name).unavailable(precision, device.type) or forbidden(
        scheme, device.type, capability=compute_capability(device), compute_dtype="bfloat16"
    )
    if reason is not None:
        pytest.skip(reason)
