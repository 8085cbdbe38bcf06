"""CUDA-only code on fake tensors of a card that is not there.

Fake tensors have shapes, dtypes and a device, but no values: what refuses to run on a card, mixes
devices, or takes other bytes than were predicted shows; what a kernel computes does not. The
libraries ask torch for the card, and are told one. bitsandbytes, GGUF and the 4-bit and 2-bit
weights of quanto cannot hold fake tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from autoquant.planner.footprint.shape_list import read_shape_list
from autoquant.planner.footprint.shapes import ModelShapes
from autoquant.planner.footprint.weights import component_bytes
from autoquant.search_spaces.compatibility import conflicts
from autoquant.search_spaces.quantize import apply_choice
from autoquant.search_spaces.scheme import Choice, Override
from autoquant.storage import held_bytes, module_tensors
from tests.planner.footprint.pipelines import MODELS

CARDS = {
    "V100": (7, 0),
    "RTX 2080": (7, 5),
    "A100": (8, 0),
    "RTX 3090": (8, 6),
    "RTX 4090": (8, 9),
    "H100": (9, 0),
    "B200": (10, 0),
    "RTX 5090": (12, 0),
}
SCHEMES = (
    "none",
    "torchao:int8wo",
    "torchao:float8wo",
    "torchao:int8dq",
    "torchao:float8dq",
    "torchao:int4wo",
    "quanto:int8",
    "sdnq:int8",
    "sdnq:uint4",
    "layerwise:float8_e4m3fn",
)
TINY = {
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 128,
    "num_attention_heads": 4,
    "joint_attention_dim": 512,
    "pooled_projection_dim": 128,
    "guidance_embeds": True,
}


@contextmanager
def fake_card(capability: tuple[int, int]) -> Iterator[None]:
    card = torch.device("cuda")
    with ExitStack() as stack:
        # First, or it would take the card for a real one.
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(torch.no_grad())
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        patch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: card)
        # Module.to() swaps fake tensors, and the fake mode's own weak references forbid that.
        patch.setattr(torch.utils, "weakref", SimpleNamespace(getweakrefs=lambda tensor: []))
        yield


def transformer(config: dict[str, Any]) -> Any:
    """A Flux transformer in bfloat16 in the host's memory; ``to(bfloat16)`` would take longer."""
    from diffusers import FluxTransformer2DModel

    torch.set_default_dtype(torch.bfloat16)
    try:
        module = FluxTransformer2DModel.from_config(config)
    finally:
        torch.set_default_dtype(torch.float32)
    return module.eval().requires_grad_(False)


def run(module: Any, side: int, text_tokens: int) -> torch.Tensor:
    def on_card(*shape: int) -> torch.Tensor:
        return torch.zeros(*shape, dtype=torch.bfloat16, device="cuda")

    config = module.config
    output = module(
        hidden_states=on_card(1, side * side, config.in_channels),
        encoder_hidden_states=on_card(1, text_tokens, config.joint_attention_dim),
        pooled_projections=on_card(1, config.pooled_projection_dim),
        timestep=on_card(1),
        guidance=on_card(1),
        img_ids=on_card(side * side, 3),
        txt_ids=on_card(text_tokens, 3),
        return_dict=False,
    )
    assert isinstance(output[0], torch.Tensor)
    return output[0]


def devices(module: Any) -> set[str]:
    return {tensor.device.type for tensor in module_tensors(module)}


@pytest.fixture(scope="module")
def flux() -> ModelShapes:
    return read_shape_list(MODELS / "flux.1-dev.json")


FIRST_BLOCKS = tuple(f"transformer_blocks.{number}" for number in range(6))


@pytest.mark.parametrize(
    "choice",
    [
        Choice(scheme="torchao:int4wo", exclusions=("proj_out",)),
        Choice(
            scheme="torchao:int4wo",
            exclusions=("proj_out",),
            overrides=(Override(scheme="torchao:int8wo", layers=FIRST_BLOCKS),),
        ),
    ],
    ids=["int4", "int4 and int8"],
)
def test_the_transformer_of_flux_dev_takes_the_bytes_predicted(
    flux: ModelShapes, choice: Choice
) -> None:
    shapes = flux.components["transformer"]
    with fake_card(CARDS["H100"]):
        module = transformer(dict(shapes.config))
        result = apply_choice(module, choice, torch.bfloat16)
        module.to("cuda")
        image = run(module, side=64, text_tokens=512)
        assert (image.device.type, tuple(image.shape)) == ("cuda", (1, 4096, 64))
        assert devices(module) == {"cuda"}
        held = held_bytes(module)
    assert len(result.layers) > 300
    assert set(result.schemes.values()) == set(choice.schemes)
    assert held == pytest.approx(component_bytes(shapes, choice, "bfloat16"), rel=1e-4)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_scheme_is_made_moved_and_run_on_a_card(scheme: str) -> None:
    with fake_card(CARDS["H100"]):
        module = transformer(TINY)
        full = held_bytes(module)
        apply_choice(module, Choice(scheme=scheme), torch.bfloat16)
        assert devices(module) == {"cpu"}  # what was quantized on the card has come back
        for device in ("cuda", "cpu", "cuda"):  # as model offload moves it
            module.to(device)
            assert devices(module) == {device}
        assert run(module, side=8, text_tokens=32).device.type == "cuda"
        assert scheme == "none" or held_bytes(module) < 0.7 * full


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("scheme", ["torchao:int8dq", "torchao:float8dq", "torchao:int4wo"])
def test_the_table_says_what_the_library_says_of_a_card(card: str, scheme: str) -> None:
    capability = CARDS[card]
    refused = conflicts(scheme, "cuda", capability=capability, compute_dtype="bfloat16")

    def make() -> None:
        module = torch.nn.Sequential(torch.nn.Linear(512, 512, dtype=torch.bfloat16))
        apply_choice(module, Choice(scheme=scheme), torch.bfloat16)

    with fake_card(capability):
        if refused:
            with pytest.raises((AssertionError, ValueError), match=r"compute capability|8\.9"):
                make()
        else:
            make()


def test_a_streamed_offload_cannot_pin_int4() -> None:
    def refused(scheme: str) -> bool:
        return bool(conflicts(scheme, "cuda", offload="group_leaf_stream"))

    assert refused("torchao:int4wo")
    assert not refused("torchao:float8wo")
    with fake_card(CARDS["H100"]):
        for scheme in ("torchao:int4wo", "torchao:float8wo"):
            module = torch.nn.Sequential(torch.nn.Linear(512, 512, dtype=torch.bfloat16))
            apply_choice(module, Choice(scheme=scheme), torch.bfloat16)
            weight = module.to("cpu")[0].weight
            if refused(scheme):
                with pytest.raises(NotImplementedError, match=r"is_pinned"):
                    weight.is_pinned()
            else:
                weight.is_pinned()
