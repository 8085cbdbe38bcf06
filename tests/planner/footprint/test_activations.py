from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from autoquant.planner.footprint.activations import (
    decoder_tape,
    denoiser_tape,
    encoder_tape,
)
from autoquant.planner.footprint.denoiser_calls import denoising_call
from autoquant.planner.footprint.family import decoder_of, encoders_of
from autoquant.planner.footprint.module_shapes import shapes_of
from autoquant.planner.footprint.prediction import DENOISING, ENCODING
from autoquant.planner.footprint.request import request_for
from autoquant.planner.footprint.shape_list import read_shape_list
from autoquant.planner.footprint.shapes import ComponentShapes, ModelShapes
from autoquant.planner.footprint.trace import build, record
from autoquant.planner.footprint.trace_calls import decoding_call, traced_tapes
from autoquant.planner.measurement import GIB
from tests.planner.footprint.pipelines import MODELS

SIZES = [(512, 512, 1), (768, 1344, 2)]


def shallow(model: ModelShapes) -> ModelShapes:
    """Fewer blocks: what is alive in one does not depend on how many there are."""
    parts: dict[str, ComponentShapes] = {}
    for name, part in model.components.items():
        config = dict(part.config)
        if name == "transformer":
            config |= {key: 2 for key in ("num_layers", "num_single_layers") if key in config}
        if part.class_name == "T5EncoderModel":
            config["num_layers"] = 2
        parts[name] = replace(part, config=config)
    return replace(model, components=parts)


@pytest.mark.parametrize(("height", "width", "batch"), SIZES)
def test_closed_forms_agree_with_traces(
    model: ModelShapes, height: int, width: int, batch: int
) -> None:
    model = shallow(model)
    request = request_for(model, height, width, batch)
    # Prompts do not know the size of the image: once is enough.
    left_out = (
        [decoder_of(model)] if height == 512 else [decoder_of(model), *encoders_of(model).values()]
    )
    parts = {name: part for name, part in model.components.items() if part not in left_out}
    traced = traced_tapes(replace(model, components=parts), request)
    assert denoiser_tape(model, request).peak_bytes == pytest.approx(
        traced[DENOISING][0].peak_bytes, rel=0.04
    )
    for component, tape in zip(
        encoders_of(replace(model, components=parts)).values(),
        traced.get(ENCODING, []),
        strict=True,
    ):
        predicted = encoder_tape(component, request).peak_bytes
        if component.class_name.startswith("CLIP"):
            assert tape.peak_bytes <= predicted < GIB / 50
        else:
            assert predicted == pytest.approx(tape.peak_bytes, rel=0.04), component.class_name


@pytest.mark.parametrize(("height", "width", "batch"), SIZES)
def test_decoding_agrees_with_traces(
    model: ModelShapes, height: int, width: int, batch: int
) -> None:
    request = request_for(model, height, width, batch)
    vae = decoder_of(model)
    assert vae is not None
    traced = record(build(vae, "bfloat16"), decoding_call(model, vae, request))
    predicted = decoder_tape(model, request, workspaces=False)
    if vae.class_name == "AutoencoderKL":
        assert predicted.peak_bytes == traced.peak_bytes
    else:
        assert predicted.peak_bytes == pytest.approx(traced.peak_bytes, rel=0.01)


def test_a_unet_with_attention_in_its_first_level_takes_more() -> None:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = shapes_of(UNet2DConditionModel(sample_size=64, cross_attention_dim=768), "unet")
    model = ModelShapes("StableDiffusionPipeline", {"unet": unet})
    request = request_for(model, 512, 512)
    assert denoiser_tape(model, request).peak_bytes == pytest.approx(
        traced_tapes(model, request)[DENOISING][0].peak_bytes, rel=0.04
    )


def test_the_decoder_of_flux_takes_what_was_counted_before(flux: ModelShapes) -> None:
    peaks = {
        pixels: decoder_tape(flux, request_for(flux, pixels, pixels), workspaces=False).peak_bytes
        for pixels in (1024, 2048)
    }
    assert peaks == {1024: 1_611_137_024, 2048: 6_444_548_096}


def test_float16_pipelines_of_sdxl_decode_in_float32() -> None:
    sdxl = read_shape_list(MODELS / "sdxl-base.json")
    half, single = (
        decoder_tape(sdxl, request_for(sdxl, compute_dtype=dtype), workspaces=False).peak_bytes
        for dtype in ("bfloat16", "float16")
    )
    assert single == pytest.approx(2 * half, rel=0.001)


def test_a_trace_counts_what_a_cpu_allocates() -> None:
    from diffusers import AutoencoderKL

    from autoquant.metrics.tracked_tensors import TensorTracker

    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=32,
    ).eval()  # fmt: skip

    def decode(module: torch.nn.Module) -> None:
        device = next(module.parameters()).device
        module.decode(torch.zeros(1, 4, 16, 16, device=device))  # type: ignore[operator]

    tracker = TensorTracker("cpu")
    tracker.hold(vae)
    held = tracker.live_bytes
    with torch.no_grad(), tracker:
        decode(vae)
    traced = record(build(shapes_of(vae, "vae"), "float32"), decode)
    assert traced.peak_bytes == pytest.approx(tracker.peak_bytes - held, rel=0.02)


# Two blocks of each model in its usual proportions.
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "AuraFlowTransformer2DModel": (
        "AuraFlowPipeline",
        {"num_mmdit_layers": 2, "num_single_dit_layers": 2, "pos_embed_max_size": 9216},
    ),
    "ChromaTransformer2DModel": ("ChromaPipeline", {"num_layers": 2, "num_single_layers": 2}),
    "CogView4Transformer2DModel": (
        "CogView4Pipeline",
        {"num_layers": 2, "num_attention_heads": 32, "attention_head_dim": 128},
    ),
    "Flux2Transformer2DModel": ("Flux2Pipeline", {"num_layers": 2, "num_single_layers": 2}),
    "Lumina2Transformer2DModel": ("Lumina2Pipeline", {"num_layers": 2, "cap_feat_dim": 2304}),
    "SanaTransformer2DModel": ("SanaPipeline", {"num_layers": 2}),
    "WanTransformer3DModel": ("WanPipeline", {"num_layers": 2}),
    "ZImageTransformer2DModel": ("ZImagePipeline", {"n_layers": 2}),
}
DEEP_COMPRESSION = ComponentShapes(
    "vae", "diffusers", "AutoencoderDC", {"encoder_block_out_channels": [128] * 6}, {}
)


@pytest.mark.parametrize("class_name", OTHERS)
def test_closed_forms_of_other_denoisers_agree_with_traces(class_name: str) -> None:
    pipeline, config = OTHERS[class_name]
    part = ComponentShapes("transformer", "diffusers", class_name, _full_config(class_name), {})
    part = replace(part, config=part.config | config)
    parts = {"transformer": part} | ({"vae": DEEP_COMPRESSION} if "Sana" in class_name else {})
    model = ModelShapes(pipeline, parts)
    request = request_for(model, 768, 1536, 2)
    traced = record(build(part, "bfloat16"), denoising_call(model, part, request))
    assert denoiser_tape(model, request).peak_bytes == pytest.approx(traced.peak_bytes, rel=0.04)


def test_a_wider_feed_forward_of_the_same_class_takes_more() -> None:
    """Wan 2.1 has its feed-forward 2.7 times as wide as the model in one size, 5.8 in another."""
    config = {"num_layers": 2, "num_attention_heads": 12, "ffn_dim": 8960}
    part = ComponentShapes(
        "transformer", "diffusers", "WanTransformer3DModel",
        _full_config("WanTransformer3DModel") | config, {},
    )  # fmt: skip
    model = ModelShapes("WanPipeline", {"transformer": part})
    request = request_for(model, 480, 832)
    traced = record(build(part, "bfloat16"), denoising_call(model, part, request))
    assert denoiser_tape(model, request).peak_bytes == pytest.approx(traced.peak_bytes, rel=0.04)


def _full_config(class_name: str) -> dict[str, Any]:
    """The defaults of the class, as a saved config holds them."""
    import inspect

    import diffusers

    parameters = inspect.signature(getattr(diffusers, class_name).__init__).parameters
    return {name: p.default for name, p in parameters.items() if p.default is not p.empty}
