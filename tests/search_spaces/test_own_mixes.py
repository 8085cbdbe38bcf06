"""What a user's space file says of layers that differ in precision."""

from __future__ import annotations

import re

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoquant.errors import SpaceFileError
from autoquant.search_spaces.exclusions import covers
from autoquant.search_spaces.own_space import open_space_file
from autoquant.search_spaces.quantize import layer_schemes
from autoquant.search_spaces.scheme import Choice, Override
from autoquant.search_spaces.space_file import parse_space_file
from tests.search_spaces.conftest import flux_transformer

OWN = """\
components:
  transformer:
    schemes: [none, "torchao:float8wo"]
    exclusions: [[]]
    mixed:
      - scheme: torchao:float8wo
        overrides:
          "transformer_blocks\\\\.0": torchao:int8wo
          ".*\\\\.ff\\\\..*": torchao:int8wo
          "proj_out": torchao:int8dq
        exclusions: ["x_embedder"]
"""


@pytest.fixture(scope="module")
def transformer():
    return flux_transformer().to("meta")


def opened(text, transformer):
    modules = {"transformer": transformer}
    return open_space_file(parse_space_file(text, "own.yaml"), "FluxPipeline", modules, "cpu")


def test_patterns_become_layers_and_each_mix_one_more_choice(transformer):
    component = opened(OWN, transformer).components["transformer"]
    [choice] = component.mixed
    assert choice == Choice(
        scheme="torchao:float8wo",
        exclusions=("x_embedder",),
        overrides=(
            Override(scheme="torchao:int8dq", layers=("proj_out",)),
            Override(
                scheme="torchao:int8wo",
                layers=("transformer_blocks.0", "transformer_blocks.1.ff.net"),
            ),
        ),
    )
    assert component.schemes == ("none", "torchao:float8wo")
    assert component.every_scheme == (*component.schemes, "torchao:int8dq", "torchao:int8wo")


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("scheme: torchao:int8wo\n        overrides: {}", "own.yaml:5: components.transformer."),
        ("schema: x", "own.yaml:4: components.transformer.mixed.0.scheme: Field required"),
        (
            "scheme: torchao:int8wo\n        overrides: {a: torchao:int8dq}\n        layers: [a]",
            "own.yaml:6: unknown key 'layers'; known: scheme, overrides, exclusions.",
        ),
        (
            "scheme: torchao:int8wo\n        overrides:\n          '(': torchao:int8dq",
            "own.yaml:6: ",
        ),
        (
            "scheme: torchao:int8wo\n        overrides:\n          a: int8dq",
            "own.yaml:6: A scheme must be 'none' or 'backend:precision'",
        ),
        (
            "scheme: torchao:int8wo\n        overrides:\n          a: torchao:int9",
            "own.yaml:6: The backend 'torchao' has no precision 'int9'",
        ),
        (
            "scheme: torchao:int8wo\n        overrides:\n          a: sdnq:int8",
            "own.yaml:6: sdnq:int8 is of another backend than torchao:int8wo",
        ),
        (
            "scheme: torchao:int8wo\n        overrides:\n          a: torchao:int8wo",
            "own.yaml:6: torchao:int8wo is what the other layers get too.",
        ),
        (
            "scheme: torchao:int8wo\n        overrides:\n          a: none",
            "own.yaml:6: none is of another backend than torchao:int8wo",
        ),
        (
            "scheme: none\n        overrides:\n          a: torchao:int8wo",
            "own.yaml:4: none has no precision to override",
        ),
        (
            "scheme: layerwise:float8_e4m3fn\n        overrides:\n"
            "          a: layerwise:float8_e5m2",
            "own.yaml:4: the backend 'layerwise' quantizes all layers of a component alike.",
        ),
    ],
)
def test_what_is_wrong_without_a_model_is_told_on_its_line(entry, told):
    text = f"components:\n  transformer:\n    mixed:\n      - {entry}\n"
    with pytest.raises(SpaceFileError) as caught:
        parse_space_file(text, "own.yaml")
    assert str(caught.value).startswith(told), caught.value


def test_a_scheme_must_be_open_to_the_component():
    with pytest.raises(SpaceFileError, match=r"own\.yaml:6: torchao:float8wo is not among"):
        parse_space_file(OWN.replace('none, "torchao:float8wo"', "none"), "own.yaml")


def test_what_does_not_fit_the_model_or_the_device_is_told_a_line_each(transformer):
    text = """\
components:
  transformer:
    mixed:
      - scheme: torchao:float8wo
        overrides:
          proj_out: torchao:int4wo
          proj_oud: torchao:int8wo
        exclusions: ["nothing.*"]
"""
    with pytest.raises(SpaceFileError) as caught:
        opened(text, transformer)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[1] for line in lines] == ["6", "7", "8"]
    assert "torchao int4wo has its kernel on cuda only" in lines[0]
    assert "'proj_oud' matches no module of transformer." in lines[1]
    text = """\
components:
  transformer:
    mixed:
      - scheme: torchao:float8wo
        overrides:
          pos_embed: torchao:int8wo
      - scheme: torchao:float8wo
        overrides:
          "transformer_blocks.0": torchao:int8wo
          ".*to_q": torchao:int8dq
"""
    with pytest.raises(SpaceFileError) as caught:
        opened(text, transformer)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[1] for line in lines] == ["6", "7"]
    assert "int8wo has nothing to quantize at pos_embed" in lines[0]
    assert "transformer_blocks.0.attn.to_q is given two schemes." in lines[1]


PATTERNS = st.sampled_from(
    [
        r"proj_out",
        r"transformer_blocks\.\d",
        r".*\.ff\..*",
        r".*\.to_[qk]",
        r"single_.*",
        r"x_embedder|context_embedder",
        r".*norm.*",
        r"nowhere",
        r"pos_embed",
    ]
)
SCHEMES = st.sampled_from(["torchao:int8wo", "torchao:int8dq", "torchao:float8wo", "sdnq:int8"])


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    base=SCHEMES,
    overrides=st.dictionaries(PATTERNS, SCHEMES, min_size=1, max_size=3),
    exclusions=st.lists(PATTERNS, max_size=2),
)
def test_a_mix_is_what_its_patterns_say_or_an_error_with_a_line(
    transformer, base, overrides, exclusions
):
    mix = {"scheme": base, "overrides": overrides, "exclusions": exclusions}
    text = yaml.safe_dump({"components": {"transformer": {"mixed": [mix]}}})
    try:
        [choice] = opened(text, transformer).components["transformer"].mixed
    except SpaceFileError as error:
        told = str(error).splitlines()
    else:
        told = []
    assert all(re.match(r"own\.yaml:\d+: .+", line) for line in told)
    if told:
        return
    schemes = layer_schemes(transformer, choice)
    assert {scheme.partition(":")[0] for scheme in (base, *overrides.values())} == {
        base.partition(":")[0]
    }
    paths = [path for path, _ in transformer.named_modules() if path]
    for pattern, scheme in overrides.items():
        below = [p for p in paths if re.fullmatch(pattern, p)]
        hit = {path for path in schemes if any(covers(root, path) for root in below)}
        assert hit
        assert {schemes[path] for path in hit} == {scheme}
    assert not any(
        covers(path, layer)
        for pattern in exclusions
        for path in paths
        if re.fullmatch(pattern, path)
        for layer in schemes
    )
