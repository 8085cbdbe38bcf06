from __future__ import annotations

import pytest

from autoquant.search_spaces.backends import backends
from autoquant.search_spaces.wider import next_wider

EVERY = [f"{name}:{p}" for name, owner in backends().items() for p in owner.precisions]


@pytest.mark.parametrize(
    ("scheme", "wider"),
    [
        ("torchao:int4wo", "torchao:int8wo"),
        ("torchao:int8wo", None),
        ("bitsandbytes:nf4", "bitsandbytes:int8"),
        ("quanto:int2", "quanto:int4"),
        ("quanto:int4", "quanto:int8"),
        ("sdnq:uint4", "sdnq:int6"),
        ("sdnq:int6", "sdnq:int8"),
        ("gguf:Q4_0", "gguf:Q5_1"),
        ("auto-round:int2", "auto-round:int3"),
        ("layerwise:float8_e4m3fn", None),
        ("modelopt:int4", None),
    ],
)
def test_the_next_wider_precision_of_the_same_backend(scheme, wider):
    assert next_wider(scheme, EVERY) == wider


def test_only_what_is_open_is_offered():
    assert next_wider("torchao:int4wo", ["torchao:int4wo", "quanto:int8"]) is None
    assert next_wider("torchao:int4wo", ["torchao:int8dq"]) == "torchao:int8dq"
