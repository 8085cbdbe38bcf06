"""The family files fit the models that they are about."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import diffusers
import pytest

from autoquant.search_spaces.linears import linears
from autoquant.search_spaces.sensitivity import families, sensitive_tiers
from tests.families import classic, modern

OWN = {
    classic.stable_diffusion: "sd1",
    classic.stable_diffusion_xl: "sdxl",
    classic.stable_diffusion_3: "sd3",
    classic.flux: "flux",
    classic.chroma: "chroma",
    classic.pixart_sigma: "pixart",
    classic.hunyuan_dit: "hunyuan_dit",
    classic.aura_flow: "aura_flow",
    modern.sana: "sana",
    modern.lumina_2: "lumina",
    modern.qwen_image: "qwen_image",
    modern.z_image: "z_image",
    modern.flux_2_klein: "flux2",
    modern.wan: "wan",
    modern.cogview_4: "cogview4",
}


@pytest.mark.parametrize(("make", "name"), OWN.items(), ids=list(OWN.values()))
def test_every_pattern_of_a_family_finds_layers(make: Callable[[], Any], name: str) -> None:
    pipeline = make()
    class_name = type(pipeline).__name__
    [family] = [it for it in families() if re.fullmatch(it.pipelines, class_name)]
    assert family.family == name
    module = getattr(pipeline, "transformer", None) or pipeline.unet
    paths = {path for path, _ in module.named_modules()}
    for rule in family.sensitive:
        if re.fullmatch(rule.models, type(module).__name__):
            for pattern in rule.layers:
                if pattern == "encoder_hid_proj":  # only where an image prompt is taken
                    continue
                assert [path for path in paths if re.fullmatch(pattern, path)], pattern
    tiers = sensitive_tiers(class_name, module)
    assert "boundary" in tiers
    kept = {layer for paths in tiers.values() for layer in paths}
    layers = linears(module)
    covered = sum(any(f"{path}.".startswith(f"{top}.") for top in kept) for path in layers)
    assert covered < len(layers)


def test_no_pipeline_belongs_to_two_families() -> None:
    names = [name for name in dir(diffusers) if name.endswith("Pipeline")]
    for name in names:
        owners = [it.family for it in families() if re.fullmatch(it.pipelines, name)]
        assert len(owners) <= 1, (name, owners)
