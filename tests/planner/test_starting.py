from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from autoquant.planner.starting import off_the_card


class Elsewhere(nn.Linear):
    """A layer on a device that is not the CPU, and says where it is told to go."""

    def __init__(self) -> None:
        super().__init__(2, 2, device="meta")
        self.moves: list[str] = []

    def to(self, device: Any) -> Any:
        self.moves.append(str(device))
        return self


def test_a_pipeline_leaves_the_card_while_its_copies_are_measured() -> None:
    elsewhere, here, hooked = Elsewhere(), nn.Linear(2, 2), Elsewhere()
    hooked._hf_hook = object()
    components = {"transformer": elsewhere, "vae": here, "text_encoder": hooked, "scheduler": 3}
    with off_the_card(SimpleNamespace(components=components)):
        assert elsewhere.moves == ["cpu"]
    assert elsewhere.moves == ["cpu", "meta"]
    assert hooked.moves == []
    assert here.weight.device == torch.device("cpu")


def test_it_comes_back_after_a_failure_too() -> None:
    elsewhere = Elsewhere()
    with (
        pytest.raises(ZeroDivisionError),
        off_the_card(SimpleNamespace(components={"transformer": elsewhere})),
    ):
        raise ZeroDivisionError
    assert elsewhere.moves == ["cpu", "meta"]
