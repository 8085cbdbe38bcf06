"""A procedural world of coloured shapes: scenes, their captions and a 64x64 renderer.

Everything the demo pipeline learns from is generated here, so no external data is involved.
The caption fixes the composition (what is where, in which colour); the seed only moves and
scales the objects a little, which is what the diffusion noise has to explain.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

IMAGE_SIZE = 64
COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.87, 0.12, 0.14),
    "green": (0.12, 0.64, 0.25),
    "blue": (0.14, 0.30, 0.88),
    "yellow": (0.97, 0.83, 0.12),
    "purple": (0.56, 0.18, 0.70),
    "orange": (0.97, 0.50, 0.08),
}
BACKGROUNDS: dict[str, tuple[float, float, float]] = {
    "white": (0.96, 0.96, 0.96),
    "black": (0.05, 0.05, 0.06),
    "gray": (0.55, 0.55, 0.56),
}
DEFAULT_BACKGROUND = "white"
SHAPES = ("circle", "square", "triangle", "cross")
RADII = {"small": 0.14, "large": 0.27}
PAIR_RADIUS = 0.18
# Where the first and the second object go, in the unit square with y pointing down.
RELATIONS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "left of": ((0.27, 0.5), (0.73, 0.5)),
    "right of": ((0.73, 0.5), (0.27, 0.5)),
    "above": ((0.5, 0.27), (0.5, 0.73)),
    "below": ((0.5, 0.73), (0.5, 0.27)),
}


@dataclass(frozen=True)
class Item:
    """One drawn object: what it is, and where it ended up."""

    shape: str
    color: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """One image: a background and one sized object, or two objects in a relation."""

    background: str
    items: tuple[Item, ...]
    size: str | None = None
    relation: str | None = None

    def caption(self, *, with_size: bool = True, with_background: bool = True) -> str:
        """Describe the scene; the parts with a default may be left out."""
        names = [noun_phrase(item) for item in self.items]
        if self.relation is not None:
            text = f"{names[0]} {self.relation} {names[1]}"
        elif with_size:
            text = f"a {self.size} {self.items[0].color} {self.items[0].shape}"
        else:
            text = names[0]
        return f"{text} on a {self.background} background" if with_background else text


def noun_phrase(item: Item) -> str:
    """Return "a red circle", or "an orange circle"."""
    article = "an" if item.color == "orange" else "a"
    return f"{article} {item.color} {item.shape}"


def random_scene(rng: random.Random) -> Scene:
    """Draw a scene: a quarter show one object, the others two of different colours."""
    background = rng.choice(list(BACKGROUNDS))
    if rng.random() < 0.25:
        size = rng.choice(list(RADII))
        x, y = (0.5 + rng.uniform(-0.1, 0.1) for _ in range(2))
        radius = RADII[size] * rng.uniform(0.92, 1.08)
        item = Item(rng.choice(SHAPES), rng.choice(list(COLORS)), x, y, radius)
        return Scene(background, (item,), size=size)
    relation = rng.choice(list(RELATIONS))
    colors = rng.sample(list(COLORS), 2)
    items = tuple(
        Item(
            rng.choice(SHAPES),
            color,
            x + rng.uniform(-0.04, 0.04),
            y + rng.uniform(-0.04, 0.04),
            PAIR_RADIUS * rng.uniform(0.9, 1.1),
        )
        for color, (x, y) in zip(colors, RELATIONS[relation], strict=True)
    )
    return Scene(background, items, relation=relation)


def is_held_out(scene: Scene) -> bool:
    """Say whether this composition (one in ten of those with two objects) is kept for checks."""
    return scene.relation is not None and zlib.crc32(scene.caption().encode()) % 10 == 9


def sample_scenes(count: int, seed: int, *, held_out: bool) -> list[Scene]:
    """Draw scenes from the training compositions, or (held_out) from those never trained on.

    Single objects have too few compositions to hold any out: there only the seed is new.
    """
    rng = random.Random(seed)
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = random_scene(rng)
        if scene.relation is not None:
            accepted = is_held_out(scene) == held_out
        else:
            # Thinned out as much as the pairs are, to keep their share at a quarter.
            accepted = not held_out or rng.random() < 0.1
        if accepted:
            scenes.append(scene)
    return scenes


def training_caption(scene: Scene, rng: random.Random) -> str:
    """Caption a scene, sometimes without the parts that have a default."""
    implied = scene.background == DEFAULT_BACKGROUND
    return scene.caption(
        with_size=rng.random() >= 0.2, with_background=not (implied and rng.random() < 0.5)
    )


def signed_distance(
    shape: str, x: torch.Tensor, y: torch.Tensor, radius: torch.Tensor
) -> torch.Tensor:
    """Return the (approximate) signed distance to a shape's edge, negative inside."""
    if shape == "circle":
        return (x * x + y * y).sqrt() - radius
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.88 * radius
    if shape == "triangle":
        base = y - 0.76 * radius
        side = 0.8944 * x.abs() - 0.4472 * (y + 1.14 * radius)
        return torch.maximum(base, side)
    if shape == "cross":
        narrow, wide = 0.34 * radius, 1.05 * radius
        upright = torch.maximum(x.abs() - narrow, y.abs() - wide)
        lying = torch.maximum(x.abs() - wide, y.abs() - narrow)
        return torch.minimum(upright, lying)
    raise ValueError(f"unknown shape {shape!r}")


def pixel_grid() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the x and y coordinates of the pixel centres in the unit square."""
    centres = (torch.arange(IMAGE_SIZE) + 0.5) / IMAGE_SIZE
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return x, y


def coverage(shape: str, x: torch.Tensor, y: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """Return how much of each pixel the shape covers (anti-aliased mask in [0, 1])."""
    return (0.5 - signed_distance(shape, x, y, radius) * IMAGE_SIZE).clamp(0, 1)


def render(scenes: Sequence[Scene]) -> torch.Tensor:
    """Draw scenes as a float tensor (count, 3, 64, 64) in [0, 1]."""
    grid_x, grid_y = pixel_grid()
    images = torch.empty(len(scenes), 3, IMAGE_SIZE, IMAGE_SIZE)
    for image, scene in zip(images, scenes, strict=True):
        image.copy_(torch.tensor(BACKGROUNDS[scene.background])[:, None, None].expand_as(image))
        for item in scene.items:
            x, y = grid_x - item.x, grid_y - item.y
            alpha = coverage(item.shape, x, y, torch.tensor(item.radius))
            # Lit from above: a little shading makes small errors visible inside the shapes too.
            light = 1.0 - 0.08 * (y / item.radius).clamp(-1, 1)
            color = (torch.tensor(COLORS[item.color])[:, None, None] * light).clamp(0, 1)
            image.lerp_(color, alpha)
    return images
