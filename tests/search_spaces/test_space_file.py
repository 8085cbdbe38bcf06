from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.errors import SpaceFileError
from autoquant.search_spaces.own_space import open_space_file
from autoquant.search_spaces.scheme import NONE
from autoquant.search_spaces.space import open_space
from autoquant.search_spaces.space_file import parse_space_file, read_space_file

OWN = """\
components:
  transformer:
    schemes: ["torchao:int8wo", "bitsandbytes:fp4"]
    exclusions:
      - ["proj_out"]
      - ["proj_out", "single_transformer_blocks\\\\.\\\\d+\\\\.norm"]
    fuse_qkv: [false]
  text_encoder_2:
    schemes: [none]
"""


@pytest.fixture
def modules(build):
    return {
        "text_encoder": build("clip"),
        "text_encoder_2": build("t5").to("meta"),
        "vae": build("vae"),
        "transformer": build("flux").to("meta"),
    }


def opened(text, modules, device="cpu"):
    return open_space_file(parse_space_file(text, "own.yaml"), "FluxPipeline", modules, device)


def faults(text, modules=None, device="cpu"):
    with pytest.raises(SpaceFileError) as caught:
        opened(text, modules or {}, device)
    return str(caught.value).splitlines()


def test_a_file_narrows_what_it_names_and_leaves_the_rest(modules):
    space = opened(OWN, modules)
    transformer = space.components["transformer"]
    assert transformer.schemes == (NONE, "torchao:int8wo", "bitsandbytes:fp4")
    assert transformer.exclusions == (
        ("proj_out",),
        ("proj_out", "single_transformer_blocks.0.norm", "single_transformer_blocks.1.norm"),
    )
    assert transformer.fuse_qkv == (False,)
    assert transformer.plainest("torchao:int8wo").exclusions == ("proj_out",)
    assert space.components["text_encoder_2"].schemes == (NONE,)
    default = open_space("FluxPipeline", modules, "cpu")
    assert space.components["text_encoder"] == default.components["text_encoder"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("components:\n  transformer:\n    scheme: [none]\n", ["own.yaml:3: unknown key 'scheme'"]),
        ("parts:\n  x: 1\n", ["own.yaml:1: unknown key 'parts'; known: components, runtime."]),
        ("components: {}\n", ["own.yaml:1: the file: Value error, it says nothing"]),
        (
            "runtime:\n  offlod: [none]\n",
            ["own.yaml:2: unknown key 'offlod'; known: "],
        ),
        ("runtime:\n  offload: [gpu]\n", ["own.yaml:2: runtime.offload.0: Input should be"]),
        ("components:\n  x:\n    schemes: []\n", ["own.yaml:3: components.x.schemes:"]),
        ("components:\n  x:\n    exclusions:\n    - ['(']\n", ["own.yaml:4: "]),
        ("components:\n  x: {}\n  x: {}\n", ["own.yaml:3: 'x' is there twice."]),
        ("components:\n  x: [\n", ["own.yaml:3: this is no YAML"]),
        ("", ["own.yaml:1: the file"]),
        (
            "components:\n  x:\n    schemes:\n    - torcha:int8\n    - gguf:Q4_K\n    - int8\n",
            ["own.yaml:4: There is no backend 'torcha'", "own.yaml:5: gguf:Q4_K", "own.yaml:6: "],
        ),
    ],
)
def test_what_is_wrong_without_a_model_is_told_a_line_each(text, told):
    lines = faults(text)
    assert len(lines) == len(told)
    assert all(line.startswith(start) for line, start in zip(lines, told, strict=True)), lines


def test_what_does_not_fit_the_pipeline_is_told_a_line_each(modules):
    text = """\
components:
  transfomer:
    schemes: [none]
  vae:
    schemes: [none]
  text_encoder:
    fuse_qkv: [true]
    exclusions:
      - ["encoder.layers.7.*", ".*mlp.*"]
  transformer:
    schemes:
      - "torchao:int8wo"
      - "torchao:int4wo"
"""
    lines = faults(text, modules)
    assert [line.split(":")[1] for line in lines] == ["2", "4", "9", "7", "13"]
    assert "no component 'transfomer'" in lines[0]
    assert "it has text_encoder, text_encoder_2, transformer" in lines[0]
    assert "vae is not searched" in lines[1]
    assert "'encoder.layers.7.*' matches no module of text_encoder" in lines[2]
    assert "cannot be fused" in lines[3]
    assert "'torchao:int4wo' was asked for but cannot be used here" in lines[4]


def test_a_scheme_without_a_layer_is_told(build):
    import torch

    class NarrowTransformer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.only = torch.nn.Linear(200, 64)  # no group of quanto's divides it

    text = "components:\n  transformer:\n    schemes: ['quanto:int4']\n"
    [line] = faults(text, {"transformer": NarrowTransformer().to(torch.bfloat16)})
    assert line.startswith("own.yaml:3: quanto:int4 cannot be used for transformer: no layer")


@given(st.text())
def test_no_text_is_a_space_by_accident(text):
    with pytest.raises(SpaceFileError, match=r"\Aown\.yaml:\d+: "):
        parse_space_file(text, "own.yaml")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(SpaceFileError, match="Cannot read the space file"):
        read_space_file(tmp_path / "none.yaml")
