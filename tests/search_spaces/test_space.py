from __future__ import annotations

import importlib.metadata
from itertools import pairwise

import pytest
import torch

from autoquant.errors import BackendUnavailable, InputError
from autoquant.search_spaces.quantize import layers_to_quantize
from autoquant.search_spaces.scheme import NONE, Choice
from autoquant.search_spaces.space import EVERY_SCHEME, SearchSpace, open_space


@pytest.fixture
def modules(build):
    return {
        "text_encoder": build("clip"),
        "text_encoder_2": build("t5"),
        "vae": build("vae"),
        "transformer": build("flux"),
    }


@pytest.fixture
def without_compiler(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)


def test_every_usable_scheme_is_open(modules):
    space = open_space("FluxPipeline", modules, "cpu", ["bitsandbytes", "torchao", "layerwise"])
    assert list(space.components) == ["text_encoder", "text_encoder_2", "transformer"]
    assert space.components["transformer"].schemes == (
        NONE,
        "bitsandbytes:nf4",
        "bitsandbytes:int8",
        "torchao:int8wo",
        "torchao:float8wo",
        "torchao:int8dq",
        "layerwise:float8_e4m3fn",
    )


def test_exclusion_sets_grow_from_nothing(modules):
    sets = open_space("FluxPipeline", modules, "cpu").components["transformer"].exclusions
    assert sets[0] == ()
    assert all(set(smaller) < set(larger) for smaller, larger in pairwise(sets))
    assert all(tuple(sorted(paths)) == paths for paths in sets)


def test_only_models_that_can_fuse_may(modules):
    space = open_space("FluxPipeline", modules, "cpu")
    assert space.components["transformer"].fuse_qkv == (False, True)
    assert space.components["text_encoder_2"].fuse_qkv == (False,)


def test_the_vae_is_struck_with_a_reason(modules):
    [struck] = [
        entry
        for entry in open_space("FluxPipeline", modules, "cpu").struck
        if entry.component == "vae"
    ]
    assert struck.scheme == EVERY_SCHEME
    assert "VAE" in struck.reason


def test_a_component_without_linear_layers_is_struck():
    module = torch.nn.Sequential(torch.nn.Conv2d(64, 64, 3), torch.nn.Linear(64, 16))
    [struck] = open_space("SomePipeline", {"refiner": module}, "cpu").struck
    assert "3%" in struck.reason


def test_every_choice_in_the_space_has_layers(modules):
    space = open_space("FluxPipeline", modules, "cpu")
    for name, component in space.components.items():
        for scheme in component.schemes[1:]:
            for exclusions in component.exclusions:
                for fuse_qkv in component.fuse_qkv:
                    choice = Choice(scheme=scheme, exclusions=exclusions, fuse_qkv=fuse_qkv)
                    assert layers_to_quantize(modules[name], choice)
                    assert choice.exclusions == exclusions


def test_meta_modules_open_the_same_space(modules):
    on_meta = {name: module.to("meta") for name, module in modules.items()}
    assert open_space("FluxPipeline", on_meta, "cpu") == open_space("FluxPipeline", modules, "cpu")


def test_what_this_device_cannot_do_is_struck(modules):
    space = open_space("FluxPipeline", modules, "mps")
    reasons = {
        entry.scheme: entry.reason for entry in space.struck if entry.component == "transformer"
    }
    assert "float8" in reasons["torchao:float8wo"]
    assert "torchao:int8wo" in space.components["transformer"].schemes


def test_a_half_usable_backend_is_searched_by_its_usable_half(modules, without_compiler):
    space = open_space("FluxPipeline", modules, "cpu", ["quanto"])
    assert space.components["transformer"].schemes == (NONE, "quanto:int8", "quanto:float8")
    assert {entry.scheme for entry in space.struck} == {"quanto:int4", "quanto:int2", EVERY_SCHEME}


def test_a_scheme_asked_for_but_unusable_is_an_error(modules, without_compiler):
    with pytest.raises(BackendUnavailable, match=r"'quanto:int4' was asked for.*ninja"):
        open_space("FluxPipeline", modules, "cpu", ["quanto:int8", "quanto:int4"])


def test_a_backend_asked_for_but_missing_is_an_error(modules, monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(BackendUnavailable, match=r"'torchao' was asked for.*pip install"):
        open_space("FluxPipeline", modules, "cpu", ["torchao"])
    space = open_space("FluxPipeline", modules, "cpu")
    assert space.components["transformer"].schemes == (NONE, "layerwise:float8_e4m3fn")


def test_schemes_that_are_off_can_be_asked_for(modules):
    space = open_space("FluxPipeline", modules, "cpu", ["bitsandbytes:fp4", "layerwise"])
    assert space.components["transformer"].schemes == (
        NONE,
        "bitsandbytes:fp4",
        "layerwise:float8_e4m3fn",
    )


@pytest.mark.parametrize("asked", ["nonsense", "torchao:int3"])
def test_an_unknown_request_is_an_error(modules, asked):
    with pytest.raises(BackendUnavailable):
        open_space("FluxPipeline", modules, "cpu", [asked])


def test_an_empty_precision_is_an_error(modules):
    with pytest.raises(InputError):
        open_space("FluxPipeline", modules, "cpu", ["torchao:"])


def test_a_space_survives_json(modules):
    space = open_space("FluxPipeline", modules, "cpu")
    assert SearchSpace.model_validate_json(space.model_dump_json()) == space


def test_a_format_that_can_only_be_loaded_is_refused_with_the_reason(modules):
    with pytest.raises(BackendUnavailable, match=r"gguf:Q4_K.*llama-quantize"):
        open_space("FluxPipeline", modules, "cpu", ["gguf:Q4_K"])


def test_sets_that_change_nothing_under_any_scheme_are_dropped(modules):
    only_t5 = {"text_encoder_2": modules["text_encoder_2"]}
    spared = open_space("FluxPipeline", only_t5, "cpu", ["bitsandbytes:nf4", "gguf:Q8_0"])
    assert spared.components["text_encoder_2"].exclusions == ((),)
    quantized = open_space("FluxPipeline", only_t5, "cpu", ["bitsandbytes:nf4", "torchao:int8wo"])
    component = quantized.components["text_encoder_2"]
    assert len(component.exclusions) == 2
    assert component.distinct_exclusions("torchao:int8wo") == component.exclusions
    assert component.distinct_exclusions("bitsandbytes:nf4") == ((),)
    assert component.smallest_equal("bitsandbytes:nf4", 1) == ()


def test_no_two_choices_of_a_component_quantize_the_same_layers(modules):
    for name, component in open_space("FluxPipeline", modules, "cpu").components.items():
        for scheme in component.schemes[1:]:
            made = [
                layers_to_quantize(modules[name], Choice(scheme=scheme, exclusions=exclusions))
                for exclusions in component.distinct_exclusions(scheme)
            ]
            assert len(made) == len(set(made))


def test_what_gains_nothing_is_tried_only_if_it_is_named(modules):
    space = open_space("FluxPipeline", modules, "cpu", ["torchao"])
    assert "torchao:int8dq" in space.components["transformer"].schemes
    assert "torchao:int8dq" not in space.components["text_encoder_2"].schemes
    [struck] = [
        entry
        for entry in space.struck
        if (entry.component, entry.scheme) == ("text_encoder_2", "torchao:int8dq")
    ]
    assert "once an image" in struck.reason
    named = open_space("FluxPipeline", modules, "cpu", ["torchao:int8dq"])
    assert "torchao:int8dq" in named.components["text_encoder_2"].schemes
