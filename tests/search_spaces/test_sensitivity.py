from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from autoquant.errors import InputError
from autoquant.search_spaces.linears import linears
from autoquant.search_spaces.sensitivity import (
    Family,
    families,
    generic,
    read_family,
    sensitive_layers,
    sensitive_tiers,
)

RULE = {
    "models": "Model",
    "tier": "boundary",
    "layers": ["proj_out"],
    "why": "It is last.",
    "source": "A paper.",
}
FAMILY = {"family": "name", "pipelines": "Name.*", "sensitive": [RULE]}

words = st.one_of(st.text(max_size=5), st.integers(), st.none(), st.sampled_from(list(RULE)))
anything = st.recursive(
    words, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4)
)


def fault_in(value: object) -> str | None:
    """What is told about a family file with this content; None if it reads."""
    try:
        read_family(yaml.safe_dump(value), "x.yaml", Family)
    except InputError as error:
        return str(error)
    return None


@given(anything)
def test_any_yaml_is_a_family_or_an_input_error(value):
    fault = fault_in(value)
    assert fault is None or "x.yaml" in fault


@given(st.text())
def test_no_text_is_a_family_by_accident(text):
    with pytest.raises(InputError, match="family file"):
        read_family(text, "x.yaml", Family)


@given(st.sampled_from(list(FAMILY)), anything)
def test_one_wrong_field_is_told_by_its_place(field, value):
    fault = fault_in({**FAMILY, field: value})
    assert fault is None or f"wrong at {field}" in fault


def test_a_wrong_expression_is_told():
    text = yaml.safe_dump({**FAMILY, "sensitive": [{**RULE, "layers": ["(proj_out"]}]})
    with pytest.raises(InputError, match=r"sensitive\.0\.layers\.0.*no regular expression"):
        read_family(text, "x.yaml", Family)


def test_python_tags_are_refused():
    with pytest.raises(InputError, match="no YAML"):
        read_family("!!python/object/apply:os.getcwd []", "x.yaml", Family)


def test_packaged_families_read():
    assert {"flux", "pixart", "sd1", "sd3", "sdxl", "wan"} <= {it.family for it in families()}
    assert generic().family == "generic"


def test_flux_has_two_tiers(build):
    tiers = sensitive_tiers("FluxPipeline", build("flux"))
    assert tiers["boundary"] == (
        "time_text_embed",
        "context_embedder",
        "x_embedder",
        "norm_out",
        "proj_out",
    )
    assert tiers["modulation"] == (
        "transformer_blocks.0.norm1.linear",
        "transformer_blocks.0.norm1_context.linear",
        "transformer_blocks.1.norm1.linear",
        "transformer_blocks.1.norm1_context.linear",
        "single_transformer_blocks.0.norm.linear",
        "single_transformer_blocks.1.norm.linear",
    )


def test_unknown_pipelines_follow_the_generic_rules(build):
    assert sensitive_layers("UnheardPipeline", "transformer", build("flux")) == (
        "context_embedder",
        "norm_out",
        "proj_out",
        "time_text_embed",
        "x_embedder",
    )
    assert sensitive_layers("UnheardPipeline", "unet", build("unet")) == ("time_embedding",)


def test_text_encoders_of_a_known_family_follow_the_generic_rules(build):
    assert sensitive_layers("FluxPipeline", "text_encoder_2", build("t5")) == (
        "encoder.block.0.layer.1.DenseReluDense.wo",
        "encoder.block.1.layer.1.DenseReluDense.wo",
    )


@pytest.mark.parametrize("model", ["flux", "t5", "clip", "unet"])
def test_sensitive_layers_exist_and_hold_linears(build, model):
    module = build(model)
    for path in sensitive_layers("FluxPipeline", model, module):
        assert linears(module.get_submodule(path)) or path in linears(module)


def test_rules_of_sd3_and_pixart_match_their_models():
    import torch
    from diffusers import PixArtTransformer2DModel, SD3Transformer2DModel

    with torch.device("meta"):
        sd3 = SD3Transformer2DModel(num_layers=2)
        pixart = PixArtTransformer2DModel(num_layers=2, caption_channels=256)
    tiers = sensitive_tiers("StableDiffusion3Pipeline", sd3)
    assert set(tiers["boundary"]) == {"time_text_embed", "context_embedder", "norm_out", "proj_out"}
    assert "transformer_blocks.1.norm1_context.linear" in tiers["modulation"]
    assert set(sensitive_layers("PixArtSigmaPipeline", "transformer", pixart)) == {
        "adaln_single",
        "caption_projection",
        "proj_out",
    }
