from __future__ import annotations

import torch._inductor.config as inductor

from autoquant.search_spaces.backends.torchao import Torchao


def test_global_compiler_settings_stay(build):
    before = inductor.get_config_copy()
    for precision in Torchao.precisions:
        module = build("clip")
        recipe = Torchao().recipe(precision)
        recipe.function(module, Torchao().quantizable_layers(module, precision), **recipe.arguments)
    assert inductor.get_config_copy() == before


def test_float8_needs_another_device_than_mps():
    assert "float8" in Torchao().unavailable("float8wo", "mps")
    assert Torchao().unavailable("int8wo", "mps") is None
