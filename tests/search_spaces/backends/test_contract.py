"""What every backend must keep, run over all that are registered."""

from __future__ import annotations

import builtins
import inspect
import json
import weakref

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from autoquant.search_spaces import backends
from autoquant.search_spaces.linears import linears
from autoquant.storage import weight_bytes

BACKENDS = backends.backends()
SCHEMES = [
    f"{name}:{precision}" for name, owner in BACKENDS.items() for precision in owner.precisions
]
MODELS = ["flux", "t5", "clip"]

# Scales, shifts and code books on top of the payload, as a share of 16 bits a weight: at most a
# float32 a block of 64 (0.031), or a row's scales in the narrowest layer of the tiny models.
OVERHEAD = 0.045

# Formats with dearer scales: two float16 a block of 32, a float32 scale and minimum a group of 64.
DEARER_OVERHEAD = {
    "gguf:Q5_1": 0.063,
    "gguf:Q4_1": 0.063,
    "sdnq:uint4": 0.063,
    "modelopt:int4": 0.063,
}

# Largest relative error of a model's output. Random weights show that a path computes the right
# thing, not how well a real model survives.
LARGEST_ERROR = {8.0: 0.13, 6.0: 0.13, 5.0: 0.2, 4.0: 0.35, 3.0: 0.6, 2.0: 1.2}

SENSITIVE_TO_DTYPE = {
    "bitsandbytes:nf4",
    "bitsandbytes:fp4",
    "layerwise:float8_e4m3fn",
    "layerwise:float8_e5m2",
    "modelopt:int4",
    *(f"auto-round:{precision}" for precision in BACKENDS["auto-round"].precisions),
    *(f"gguf:{precision}" for precision in BACKENDS["gguf"].precisions),
    *(f"sdnq:{precision}" for precision in BACKENDS["sdnq"].precisions if precision != "int8"),
}


def split(scheme):
    name, precision = scheme.split(":")
    return BACKENDS[name], precision


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_bytes_fall_to_what_the_format_says(quantized, model, scheme):
    made = quantized(model, scheme)
    layers = [made.module.get_submodule(path) for path in made.result.layers]
    full = sum(2 * layer.in_features * layer.out_features for layer in layers)
    owner, precision = split(scheme)
    payload = owner.precisions[precision] / 16
    overhead = DEARER_OVERHEAD.get(scheme, OVERHEAD)
    assert payload <= sum(map(weight_bytes, layers)) / full <= payload + overhead
    assert made.result.bytes_after < made.result.bytes_before


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_output_is_finite_and_near_the_reference(
    quantized, reference, relative_error, model, scheme
):
    made = quantized(model, scheme)
    owner, precision = split(scheme)
    assert made.output.isfinite().all()
    error = relative_error(made.output, reference(model))
    assert 0.0 < error < LARGEST_ERROR[owner.precisions[precision]]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_second_forward_repeats_the_first(quantized, run, scheme):
    made = quantized("flux", scheme)
    assert torch.equal(run("flux", made.module), made.output)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_exactly_the_eligible_layers_are_quantized(quantized, build, model, scheme):
    owner, precision = split(scheme)
    made = quantized(model, scheme)
    assert made.result.layers == owner.quantizable_layers(build(model), precision)
    left = set(linears(build(model))) - set(made.result.layers)
    assert len(left) == (2 if model == "t5" and scheme in SENSITIVE_TO_DTYPE else 0)
    for path in left:
        layer = made.module.get_submodule(path)
        assert type(layer) is nn.Linear
        assert type(layer.weight) is nn.Parameter
        assert layer.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("scheme", SCHEMES)
def test_exclusions_are_exact(quantized, build, scheme):
    excluded = ("proj_out", "single_transformer_blocks.1", "transformer_blocks.0.attn.to_q")
    made = quantized("flux", scheme, exclusions=excluded)
    left = set(linears(build("flux"))) - set(made.result.layers)
    assert "transformer_blocks.1.attn.to_q" not in left
    assert "single_transformer_blocks.0.proj_out" not in left
    assert left == {
        "proj_out",
        "transformer_blocks.0.attn.to_q",
        *(
            path
            for path in linears(build("flux"))
            if path.startswith("single_transformer_blocks.1.")
        ),
    }
    for path in left:
        assert made.module.get_submodule(path).weight.dtype == torch.bfloat16


@pytest.mark.parametrize("scheme", SCHEMES)
def test_recipe_is_self_contained(quantized, build, run, scheme):
    made = quantized("clip", scheme)
    owner, precision = split(scheme)
    recipe = owner.recipe(precision)
    source = inspect.getsource(recipe.function)
    assert "autoquant" not in source
    assert json.loads(json.dumps(dict(recipe.arguments))) == dict(recipe.arguments)
    namespace = {"__builtins__": builtins}
    exec(source, namespace)
    module = build("clip")
    namespace[recipe.function.__name__](module, list(made.result.layers), **recipe.arguments)
    assert torch.equal(run("clip", module), made.output)


class Living(TorchDispatchMode):
    """Counts which of some storages are still alive, after every operation."""

    def __init__(self, storages):
        super().__init__()
        self.storages = storages
        self.now = len(storages)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.now = sum(storage() is not None for storage in self.storages)
        return result


@pytest.mark.parametrize("scheme", SCHEMES)
def test_originals_are_released_one_by_one(build, scheme):
    owner, precision = split(scheme)
    reason = owner.unavailable(precision, "cpu")
    if reason is not None:
        pytest.skip(reason)
    module = build("clip")
    layers = owner.quantizable_layers(module, precision)
    recipe = owner.recipe(precision)
    recipe.function(build("clip"), layers, **recipe.arguments)  # warm caches keep nothing alive
    storages = [weakref.ref(module.get_submodule(path).weight.untyped_storage()) for path in layers]
    assert all(storage() is not None for storage in storages)
    with Living(storages) as living:
        recipe.function(module, layers, **recipe.arguments)
    assert living.now <= 1  # when the last layer was quantized, only its own was left
    assert not any(storage() for storage in storages)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_quantized_module_is_ready_for_inference(build, scheme):
    owner, precision = split(scheme)
    reason = owner.unavailable(precision, "cpu")
    if reason is not None:
        pytest.skip(reason)
    module = build("clip").train().requires_grad_(True)
    recipe = owner.recipe(precision)
    recipe.function(module, owner.quantizable_layers(module, precision), **recipe.arguments)
    assert not any(part.training for part in module.modules())
    assert not any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_tied_weights_are_left_alone(scheme):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(128, 512)
            self.body = nn.Linear(512, 512)
            self.shared = nn.Linear(512, 512)
            self.again = self.shared
            self.head = nn.Linear(512, 128, bias=False)
            self.head.weight = self.embedding.weight

    owner, precision = split(scheme)
    with torch.device("meta"):
        on_meta = Tied()
    assert owner.quantizable_layers(on_meta, precision) == ("body",)
    assert owner.quantizable_layers(Tied(), precision) == ("body",)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_layers_are_found_on_the_meta_device(build, scheme):
    owner, precision = split(scheme)
    assert owner.quantizable_layers(build("t5").to("meta"), precision) == owner.quantizable_layers(
        build("t5"), precision
    )


@pytest.mark.parametrize("model", MODELS)
def test_error_grows_as_bits_fall(quantized, reference, relative_error, model):
    errors = {
        precision: relative_error(quantized(model, f"quanto:{precision}").output, reference(model))
        for precision in ("int8", "int4", "int2")
    }
    assert 4 * errors["int8"] < errors["int4"]
    assert 2 * errors["int4"] < errors["int2"]
    nf4 = relative_error(quantized(model, "bitsandbytes:nf4").output, reference(model))
    assert nf4 > 4 * relative_error(quantized(model, "bitsandbytes:int8").output, reference(model))
