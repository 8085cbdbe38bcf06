"""Sequential offload of every scheme, against the compatibility table.

accelerate keeps the weights on the meta device between forwards and brings them to wherever they
are computed with, so that a CPU can stand for the card.
"""

from __future__ import annotations

import pytest
import torch
from accelerate import cpu_offload

from autoquant.search_spaces import backends
from autoquant.search_spaces.compatibility import conflicts
from autoquant.search_spaces.quantize import apply_choice
from autoquant.search_spaces.scheme import Choice
from autoquant.storage import module_tensors

# Scales that are buffers stay on the card, as all buffers do.
MOST_KEPT = 0.2

SCHEMES = [
    f"{name}:{precision}"
    for name, owner in backends.backends().items()
    for precision in owner.precisions
]


@pytest.fixture
def quantized_encoder(build):
    def make(scheme):
        name, precision = scheme.split(":")
        reason = backends.backend(name).unavailable(precision, "cpu")
        if reason is not None:
            pytest.skip(reason)
        module = build("t5")
        apply_choice(module, Choice(scheme=scheme), torch.bfloat16)
        return module

    return make


@pytest.mark.parametrize("scheme", SCHEMES)
def test_sequential_offload_brings_every_part_and_keeps_little(quantized_encoder, run, scheme):
    module = quantized_encoder(scheme)
    before, weights = run("t5", module), kept_bytes(module)

    def works():
        cpu_offload(module, torch.device("cpu"))
        if not torch.equal(run("t5", module), before):
            return False
        return kept_bytes(module) < MOST_KEPT * weights

    if conflicts(scheme, "cuda", offload="sequential", compute_dtype="bfloat16"):
        try:
            assert not works()
        except (TypeError, KeyError, NotImplementedError):
            return
    else:
        assert works()


def kept_bytes(module):
    return sum(tensor.nbytes for tensor in module_tensors(module) if not tensor.is_meta)
