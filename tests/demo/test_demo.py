"""The shipped demo pipeline: what is in its directory, and that it draws what it is asked for."""

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, FluxPipeline

from autoquant.demo import WORKLOAD, pipeline_directory

SIZE_LIMIT = 10_000_000
COLORS = {
    "red": (0.87, 0.12, 0.14),
    "green": (0.12, 0.64, 0.25),
    "blue": (0.14, 0.30, 0.88),
    "yellow": (0.97, 0.83, 0.12),
    "purple": (0.56, 0.18, 0.70),
    "orange": (0.97, 0.50, 0.08),
    "white": (0.96, 0.96, 0.96),
    "black": (0.05, 0.05, 0.06),
    "gray": (0.55, 0.55, 0.56),
}
# The half of the image in which each relation puts its first and its second object.
HALVES = {
    "left": (np.s_[:, :32], np.s_[:, 32:]),
    "right": (np.s_[:, 32:], np.s_[:, :32]),
    "above": (np.s_[:32], np.s_[32:]),
    "below": (np.s_[32:], np.s_[:32]),
}
PAIRS = [prompt for prompt in WORKLOAD["prompts"] if HALVES.keys() & prompt.split()]
SINGLES = [prompt for prompt in WORKLOAD["prompts"] if prompt not in PAIRS]


@pytest.fixture(scope="module")
def pipeline() -> DiffusionPipeline:
    loaded = DiffusionPipeline.from_pretrained(pipeline_directory(), dtype=torch.bfloat16)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def draw(pipeline: DiffusionPipeline, prompts: Sequence[str], seed: int = 0) -> np.ndarray:
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    images: np.ndarray = pipeline(
        list(prompts),
        height=WORKLOAD["height"],
        width=WORKLOAD["width"],
        num_inference_steps=WORKLOAD["steps"],
        guidance_scale=WORKLOAD["guidance_scale"],
        max_sequence_length=WORKLOAD["max_sequence_length"],
        generator=generators,
        output_type="np",
    ).images
    return images


def name_pixels(image: np.ndarray) -> np.ndarray:
    """Name every pixel by its nearest colour."""
    distances = np.linalg.norm(image[:, :, None] - np.array(list(COLORS.values())), axis=-1)
    return np.array(list(COLORS))[distances.argmin(-1)]


def colors_named(prompt: str) -> list[str]:
    return [word for word in prompt.split() if word in COLORS]


def test_importing_the_demo_loads_no_machine_learning_library() -> None:
    code = "import sys, autoquant.demo; print(sorted({'torch', 'diffusers'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_directory_is_small_and_holds_no_pickles() -> None:
    files = [path for path in pipeline_directory().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= SIZE_LIMIT
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt"}


def test_it_is_a_flux_pipeline_with_group_sized_layers(pipeline: DiffusionPipeline) -> None:
    assert isinstance(pipeline, FluxPipeline)
    assert len(pipeline.transformer.transformer_blocks) >= 1
    assert len(pipeline.transformer.single_transformer_blocks) >= 1
    for name, module in pipeline.transformer.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "x_embedder":
            assert module.in_features % 128 == 0, name


def test_tokenizers_know_every_word_of_the_workload(pipeline: DiffusionPipeline) -> None:
    for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2):
        for ids in tokenizer(WORKLOAD["prompts"]).input_ids:
            assert tokenizer.unk_token_id not in ids
            assert len(ids) <= WORKLOAD["max_sequence_length"]


def test_two_objects_have_their_colours_in_their_places(pipeline: DiffusionPipeline) -> None:
    assert len(PAIRS) >= 12
    for prompt, image in zip(PAIRS, draw(pipeline, PAIRS), strict=True):
        names = name_pixels(image)
        relation = next(word for word in prompt.split() if word in HALVES)
        for color, half in zip(colors_named(prompt), HALVES[relation], strict=False):
            inside = (names[half] == color).sum()
            assert inside >= 100, f"{prompt}: {inside} {color} pixels in the right half"
            assert inside >= 0.9 * (names == color).sum(), f"{prompt}: {color} on the wrong side"


def test_backgrounds_and_sizes_are_as_asked(pipeline: DiffusionPipeline) -> None:
    areas = {}
    for prompt, image in zip(SINGLES, draw(pipeline, SINGLES), strict=True):
        names = name_pixels(image)
        color, background = colors_named(prompt)
        assert (names[0] == background).mean() > 0.9, prompt
        areas[prompt] = (names == color).mean()
    small = [area for prompt, area in areas.items() if "small" in prompt.split()]
    large = [area for prompt, area in areas.items() if "large" in prompt.split()]
    assert max(small) < min(large)


def test_shapes_differ_in_how_much_of_their_box_they_fill(pipeline: DiffusionPipeline) -> None:
    shapes = ("square", "circle", "triangle", "cross")
    prompts = [f"a large red {shape} on a white background" for shape in shapes]
    filled = {}
    for shape, image in zip(shapes, draw(pipeline, prompts), strict=True):
        mask = name_pixels(image) == "red"
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        filled[shape] = box.mean()
    # The exact shares: 1, pi/4, 1/2 and, for this cross, 0.54.
    assert filled["square"] > 0.88
    assert 0.70 < filled["circle"] < 0.87
    assert 0.42 < filled["triangle"] < 0.62
    assert 0.45 < filled["cross"] < 0.64


def test_an_equal_seed_gives_an_equal_image(pipeline: DiffusionPipeline) -> None:
    prompt = WORKLOAD["prompts"][:1]
    first = draw(pipeline, prompt, seed=5)
    assert np.array_equal(first, draw(pipeline, prompt, seed=5))
    assert not np.array_equal(first, draw(pipeline, prompt, seed=6))
