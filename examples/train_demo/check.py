"""Check by measurement whether a generated image shows what its prompt asked for.

`python examples/train_demo/check.py DIR` prints the scores of a pipeline on compositions that
were never trained on. Every requested object has to pass: its colour must fill an area of the
right size in the right place, and that area must overlap best with the requested shape, by an
intersection over union of at least 0.8.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from torchvision.utils import save_image
from world import (
    BACKGROUNDS,
    COLORS,
    IMAGE_SIZE,
    PAIR_RADIUS,
    RADII,
    RELATIONS,
    SHAPES,
    Item,
    Scene,
    coverage,
    pixel_grid,
    render,
    sample_scenes,
)

PALETTE = {**COLORS, **BACKGROUNDS}
MINIMUM_OVERLAP = 0.8
PLACE_TOLERANCE = 0.14
AREA_TOLERANCE = 1.6


@dataclass(frozen=True)
class Verdict:
    """What is right about one image: all its objects have to pass."""

    background: bool
    color_and_position: bool
    shape: bool
    clean: bool


def classify_pixels(image: torch.Tensor) -> torch.Tensor:
    """Name every pixel by the index of the nearest palette colour."""
    palette = torch.tensor(list(PALETTE.values()))
    pixels = image.permute(1, 2, 0).reshape(-1, 3)
    return torch.cdist(pixels, palette).argmin(1).reshape(IMAGE_SIZE, IMAGE_SIZE)


def shape_mask(shape: str, x: float, y: float, radius: float) -> torch.Tensor:
    """Rasterise a shape as a boolean mask."""
    grid_x, grid_y = pixel_grid()
    return coverage(shape, grid_x - x, grid_y - y, torch.tensor(radius)) > 0.5


def overlap(mask: torch.Tensor, shape: str) -> float:
    """Fit a shape to a mask (centre from the centroid, size from the area): the best IoU."""
    grid_x, grid_y = pixel_grid()
    unit = shape_mask(shape, 0.5, 0.5, 0.25)
    radius = 0.25 * (float(mask.sum()) / float(unit.sum())) ** 0.5
    # A triangle's centroid lies below the centre it is drawn around.
    x = grid_x[mask].mean().item()
    y = grid_y[mask].mean().item() - (grid_y[unit].mean().item() - 0.5) * radius / 0.25
    best = 0.0
    pixel = 0.5 / IMAGE_SIZE
    for scale in (0.94, 1.0, 1.06):
        for dx in (-pixel, 0.0, pixel):
            for dy in (-pixel, 0.0, pixel):
                fitted = shape_mask(shape, x + dx, y + dy, radius * scale)
                best = max(best, float((mask & fitted).sum()) / float((mask | fitted).sum()))
    return best


def expected_place(scene: Scene, index: int) -> tuple[float, float, float]:
    """Return the centre and radius around which an object's drawing varies."""
    if scene.relation is None:
        return 0.5, 0.5, RADII[scene.size or "large"]
    x, y = RELATIONS[scene.relation][index]
    return x, y, PAIR_RADIUS


def object_mask(labels: torch.Tensor, item: Item) -> torch.Tensor:
    """Mark the pixels of an object's colour."""
    return labels == list(PALETTE).index(item.color)


def is_placed(mask: torch.Tensor, scene: Scene, index: int) -> bool:
    """Say whether an object's pixels have the right amount and centre."""
    x, y, radius = expected_place(scene, index)
    expected = float(shape_mask(scene.items[index].shape, 0.5, 0.5, radius).sum())
    area = float(mask.sum())
    if not expected / AREA_TOLERANCE < area < expected * AREA_TOLERANCE:
        return False
    grid_x, grid_y = pixel_grid()
    dx, dy = grid_x[mask].mean().item() - x, grid_y[mask].mean().item() - y
    return max(abs(dx), abs(dy)) < PLACE_TOLERANCE


def silhouette(image: torch.Tensor, scene: Scene, index: int) -> torch.Tensor:
    """Mark the pixels nearer to an object's colour than to the background, on its own side.

    Unlike the nearest palette colour this has no false rim: an anti-aliased edge between yellow
    and black passes through something close to orange.
    """
    color = torch.tensor(COLORS[scene.items[index].color])[:, None, None]
    background = torch.tensor(BACKGROUNDS[scene.background])[:, None, None]
    mask = (image - color).square().sum(0) < (image - background).square().sum(0)
    grid_x, grid_y = pixel_grid()
    places = [expected_place(scene, i)[:2] for i in range(len(scene.items))]
    distances = torch.stack([(grid_x - x).square() + (grid_y - y).square() for x, y in places])
    return mask & (distances.argmin(0) == index)


def has_shape(mask: torch.Tensor, shape: str) -> bool:
    """Say whether a mask fits the requested shape well, and better than every other one."""
    if not mask.any():
        return False
    scores = {name: overlap(mask, name) for name in SHAPES}
    return max(scores, key=scores.__getitem__) == shape and scores[shape] >= MINIMUM_OVERLAP


def judge(image: torch.Tensor, scene: Scene) -> Verdict:
    """Compare one image, (3, 64, 64) in [0, 1], with the scene its prompt describes."""
    labels = classify_pixels(image)
    masks = [object_mask(labels, item) for item in scene.items]
    border = torch.cat([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    background = list(PALETTE).index(scene.background)
    wanted = labels == background
    for mask in masks:
        wanted |= mask
    return Verdict(
        background=(border == background).float().mean().item() > 0.95,
        color_and_position=all(is_placed(mask, scene, i) for i, mask in enumerate(masks)),
        shape=all(
            has_shape(silhouette(image, scene, i), item.shape) for i, item in enumerate(scene.items)
        ),
        # Anti-aliased edges pass through other colours, so a rim of them is expected.
        clean=wanted.float().mean().item() > 0.93,
    )


def score(images: torch.Tensor, scenes: Sequence[Scene]) -> dict[str, float]:
    """Return the share of images that pass each check, and all of them together."""
    verdicts = [judge(image, scene) for image, scene in zip(images, scenes, strict=True)]
    rates = {
        name: sum(getattr(v, name) for v in verdicts) / len(verdicts)
        for name in Verdict.__dataclass_fields__
    }
    return {**rates, "all": sum(all(astuple(v)) for v in verdicts) / len(verdicts)}


def load(directory: Path) -> DiffusionPipeline:
    """Load a pipeline as a user would."""
    pipeline = DiffusionPipeline.from_pretrained(directory, dtype=torch.bfloat16)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(
    pipeline: DiffusionPipeline, prompts: Sequence[str], *, seed: int, steps: int
) -> torch.Tensor:
    """Generate one image per prompt, each from its own seed, as (count, 3, 64, 64)."""
    images = []
    for start in range(0, len(prompts), 16):
        batch = list(prompts[start : start + 16])
        seeds = range(seed + start, seed + start + len(batch))
        output = pipeline(
            batch,
            height=IMAGE_SIZE,
            width=IMAGE_SIZE,
            num_inference_steps=steps,
            max_sequence_length=16,
            generator=[torch.Generator().manual_seed(s) for s in seeds],
            output_type="pt",
        )
        images.append(output.images.float())
    return torch.cat(images)


def main() -> None:
    """Score a pipeline and, for comparison, the renderer itself."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("--count", type=int, default=256, help="number of scenes")
    parser.add_argument("--steps", type=int, default=8, help="sampling steps")
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--grid", type=Path, help="write the first 64 images as a PNG")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(arguments.threads)
    scenes = sample_scenes(arguments.count, arguments.seed, held_out=True)
    start = time.time()
    images = draw(
        load(arguments.pipeline),
        [scene.caption() for scene in scenes],
        seed=arguments.seed,
        steps=arguments.steps,
    )
    seconds = time.time() - start
    print(f"{arguments.count} images, {arguments.steps} steps: {seconds:.1f} s")
    for name, rates in (
        ("pipeline", score(images, scenes)),
        ("renderer", score(render(scenes), scenes)),
    ):
        print(name, " ".join(f"{key} {value:.3f}" for key, value in rates.items()))
    failed = [
        s for image, s in zip(images, scenes, strict=True) if not all(astuple(judge(image, s)))
    ]
    for scene in failed[:20]:
        print("  failed:", scene.caption())
    if arguments.grid is not None:
        save_image(images[:64], arguments.grid, nrow=8, padding=2)


if __name__ == "__main__":
    main()
