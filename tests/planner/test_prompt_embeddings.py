"""Real text encoders of the demo pipeline, asked for the same prompts again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from autoquant.demo import pipeline_directory
from autoquant.planner.drawing import Images, draw
from autoquant.planner.prompt_embeddings import PromptEmbeddings
from autoquant.planner.workload import Sample, Workload

WORKLOAD = Workload(prompts=("a red circle",), height=64, width=64, steps=1)
RED, BLUE = [Sample("a red circle", 0)], [Sample("a blue square", 0)]


@pytest.fixture
def pipeline() -> Any:
    return DiffusionPipeline.from_pretrained(pipeline_directory(), torch_dtype=torch.bfloat16)


@pytest.fixture
def encoded(pipeline: Any) -> list[int]:
    """How many prompts the text encoder was given each time."""
    sizes: list[int] = []
    pipeline.text_encoder.register_forward_pre_hook(
        lambda module, arguments, named: sizes.append(len((arguments or [named["input_ids"]])[0])),
        with_kwargs=True,
    )
    return sizes


def drawn(pipeline: Any, *samples: list[Sample]) -> list[Images]:
    pipeline.set_progress_bar_config(disable=True)
    return [draw(pipeline, WORKLOAD, batch) for batch in samples]


def test_each_prompt_is_encoded_once_and_draws_the_same(pipeline: Any, encoded: list[int]) -> None:
    plain = drawn(pipeline, RED, BLUE)
    assert len(encoded) == 2
    PromptEmbeddings().lend_to(pipeline, "encoders")
    for _ in range(2):
        assert all(map(np.array_equal, drawn(pipeline, RED, BLUE), plain))
    assert len(encoded) == 4


def test_another_pipeline_with_the_same_encoders_encodes_nothing(
    pipeline: Any, encoded: list[int]
) -> None:
    embeddings = PromptEmbeddings()
    first = DiffusionPipeline.from_pretrained(pipeline_directory(), torch_dtype=torch.bfloat16)
    embeddings.lend_to(first, "encoders")
    embeddings.lend_to(pipeline, "encoders")
    (one,), (other,) = drawn(first, RED), drawn(pipeline, RED)
    assert encoded == []
    assert np.array_equal(one, other)


@pytest.mark.parametrize("encoders", ["encoders", "others"])
def test_what_was_dropped_or_encoded_by_others_is_encoded_again(
    pipeline: Any, encoded: list[int], encoders: str
) -> None:
    embeddings = PromptEmbeddings()
    embeddings.lend_to(pipeline, "encoders")
    drawn(pipeline, RED)
    if encoders == "encoders":
        embeddings.drop()
    fresh = DiffusionPipeline.from_pretrained(pipeline_directory(), torch_dtype=torch.bfloat16)
    fresh.text_encoder = pipeline.text_encoder
    embeddings.lend_to(fresh, encoders)
    drawn(fresh, RED)
    assert len(encoded) == 2


class Encoding:
    """A pipeline's method alone."""

    def __init__(self) -> None:
        self.calls = 0

    def encode_prompt(self, prompt: Any, length: int = 1, **named: Any) -> Any:
        self.calls += 1
        return torch.full((length,), float(self.calls)), None


def test_arguments_are_told_apart() -> None:
    encoding = Encoding()
    PromptEmbeddings().lend_to(encoding, None)
    for arguments in ({"prompt": "a"}, {"prompt": ["a"]}, {"prompt": "a", "length": 2}):
        encoding.encode_prompt(**arguments)
        encoding.encode_prompt(**arguments)
    assert encoding.calls == 3


def test_tensors_are_encoded_each_time() -> None:
    encoding = Encoding()
    PromptEmbeddings().lend_to(encoding, None)
    for _ in range(2):
        encoding.encode_prompt("a", prompt_embeds=torch.zeros(1))
    assert encoding.calls == 2


def test_what_a_pipeline_writes_into_its_embeddings_is_not_kept() -> None:
    encoding = Encoding()
    PromptEmbeddings().lend_to(encoding, None)
    first, _ = encoding.encode_prompt("a")
    first[:] = 7.0
    second, nothing = encoding.encode_prompt("a")
    assert second.tolist() == [1.0]
    assert nothing is None


def test_what_cannot_be_copied_is_encoded_each_time() -> None:
    class Named(Encoding):
        def encode_prompt(self, prompt: Any, length: int = 1, **named: Any) -> Any:
            return {"embeddings": super().encode_prompt(prompt, length)}

    encoding = Named()
    PromptEmbeddings().lend_to(encoding, None)
    for _ in range(2):
        encoding.encode_prompt("a")
    assert encoding.calls == 2


def test_no_more_than_a_few_are_kept() -> None:
    encoding, embeddings = Encoding(), PromptEmbeddings()
    embeddings.lend_to(encoding, None)
    for number in range(500):
        encoding.encode_prompt(f"prompt {number}")
    assert 0 < embeddings.held_bytes < 500 * 4


def test_a_pipeline_without_the_method_is_left_alone() -> None:
    PromptEmbeddings().lend_to(without := object(), None)
    assert not hasattr(without, "encode_prompt")
