"""What is asked of the pipeline while it is measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from math import isfinite
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from autoquant.errors import InputError

# Varied on purpose: people, texture, counting, text rendering, spatial relations, low light, style.
DEFAULT_PROMPTS = (
    "a portrait photograph of an old fisherman with a grey beard, soft window light",
    "a red bicycle leaning against a blue wooden door",
    'a shop sign that says "FRESH BREAD" above a bakery window',
    "three green apples and one orange in a white bowl, top view",
    "a mountain lake at dawn, mist over the water, pine trees",
    "a watercolor painting of a fox in a snowy forest",
    "a city street at night in the rain, neon reflections",
    "a macro photograph of a bee on a sunflower",
)

# Never used while searching. The first ones render text and count, where small damage shows first.
UNSEEN_PROMPTS = (
    'a wooden sign at a trail head that reads "NORTH RIDGE 4 KM"',
    "an elderly woman laughing in a sunlit kitchen, flour on her hands",
    'the cover of a paperback novel titled "THE LAST LIGHTHOUSE"',
    "two black cats and a white one asleep on a striped sofa",
    'a chalkboard menu: "SOUP 5, TEA 2, CAKE 3"',
    "a sailing boat under a stormy sky, oil painting",
    "a glass teapot on a marble table, backlit, shallow depth of field",
    "an aerial view of a river delta at sunset",
    "a violinist on an empty stage, a single spotlight",
    "a tiled courtyard with an orange tree, long shadows",
    "a robot gardener watering tomatoes, isometric illustration",
    "a steam train crossing a stone viaduct in autumn",
)

CallArgument = str | int | float | bool | None


class Sample(NamedTuple):
    """One image to draw."""

    prompt: str
    seed: int


class Workload(BaseModel):
    """Prompts, seeds and sizes; every prompt is drawn with every seed.

    Attributes:
        height: Pixels. width: Pixels.
        guidance_scale: ``None`` leaves the pipeline's own default.
        batch_size: Images per pipeline call; latency is that of one call.
        call_arguments: Further keyword arguments of the pipeline call.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    prompts: tuple[str, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    steps: int = Field(gt=0)
    guidance_scale: float | None = None
    batch_size: int = Field(default=1, gt=0)
    call_arguments: dict[str, CallArgument] = {}

    @property
    def key(self) -> str:
        """A text that is equal for equal workloads."""
        return self.model_dump_json()

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The images to draw, prompts varying slowest."""
        return tuple(Sample(prompt, seed) for prompt, seed in product(self.prompts, self.seeds))

    def batches(self) -> Iterator[tuple[Sample, ...]]:
        """Yield the samples of each pipeline call."""
        samples = self.samples
        for start in range(0, len(samples), self.batch_size):
            yield samples[start : start + self.batch_size]


@dataclass(frozen=True)
class WorkloadRequest:
    """What a user says of the workload; ``None`` is filled in from the pipeline.

    Attributes:
        seeds: How many seeds each prompt is drawn with: 0, 1, 2 …
    """

    prompts: tuple[str, ...] | None = None
    seeds: int = 1
    height: int | None = None
    width: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    batch_size: int = 1
    call_arguments: Mapping[str, CallArgument] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("seeds", "height", "width", "steps", "batch_size"):
            number = getattr(self, name)
            if number is not None and (not isinstance(number, int) or number < 1):
                raise InputError(f"{name} must be a whole number of at least 1, got {number!r}.")
        scale = self.guidance_scale
        if scale is not None and not (isinstance(scale, int | float) and isfinite(scale)):
            raise InputError(f"guidance_scale must be a finite number, got {scale!r}.")
        if self.prompts is not None and not (self.prompts and all(map(_is_prompt, self.prompts))):
            raise InputError("prompts must be texts, at least one, and none of them empty.")


def _is_prompt(prompt: object) -> bool:
    return isinstance(prompt, str) and bool(prompt.strip())


def read_prompts(path: Path) -> tuple[str, ...]:
    """Read one prompt a line; blank lines and lines that start with ``#`` are left out.

    Raises:
        InputError: The file cannot be read, is not UTF-8, or holds no prompt.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"Cannot read the prompts file {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"The prompts file {path} is not UTF-8 text: {error.reason}.") from error
    lines = (line.strip() for line in text.splitlines())
    prompts = tuple(line for line in lines if line and not line.startswith("#"))
    if not prompts:
        raise InputError(f"The prompts file {path} holds no prompt; write one a line.")
    return prompts
