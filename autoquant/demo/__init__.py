"""A small text-to-image pipeline that ships with the package, trained on drawn shapes.

It lets every part of autoquant run for real in seconds on a CPU, without a download. Importing
this module loads no machine learning library.
"""

from pathlib import Path
from typing import TypedDict

__all__ = ["UNSEEN_PROMPTS", "WORKLOAD", "DemoWorkload", "pipeline_directory"]


class DemoWorkload(TypedDict):
    """What to draw with the demo pipeline, as arguments of its call."""

    prompts: list[str]
    height: int
    width: int
    steps: int
    guidance_scale: float
    max_sequence_length: int


# None of the two-object compositions was in the training data (there are too few compositions
# of one object to hold any out). The captions follow the grammar that the pipeline was trained
# on, which is all the language it knows.
WORKLOAD: DemoWorkload = {
    "prompts": [
        "a red circle left of a blue square",
        "a yellow triangle above a green cross on a gray background",
        "a purple square right of an orange triangle on a black background",
        "a green square below a blue cross on a white background",
        "a large orange circle on a black background",
        "a blue cross above a yellow triangle on a black background",
        "a red triangle left of a yellow circle on a gray background",
        "a small purple cross on a white background",
        "an orange square below a purple cross on a black background",
        "a yellow square left of a purple circle on a white background",
        "a blue cross right of an orange square on a gray background",
        "a green triangle above a purple square on a white background",
        "a large red triangle on a gray background",
        "a red square below a yellow circle on a gray background",
        "a yellow circle right of a green square on a black background",
        "an orange cross left of a green square on a black background",
    ],
    "height": 64,
    "width": 64,
    "steps": 8,
    # The transformer takes no guidance embedding, so the pipeline ignores this.
    "guidance_scale": 0.0,
    "max_sequence_length": 16,
}


# Compositions that were neither in the training data nor in the workload.
UNSEEN_PROMPTS = (
    "a yellow circle below a purple circle on a black background",
    "a green cross right of an orange cross on a gray background",
    "a blue triangle below an orange square on a gray background",
    "a blue cross below an orange square on a white background",
    "a yellow square below a red triangle on a white background",
    "an orange circle right of a yellow square on a white background",
    "a yellow circle right of a red square on a black background",
    "a purple circle below a yellow cross on a gray background",
    "a blue circle above a yellow triangle on a black background",
    "a blue circle left of a green circle on a gray background",
    "a yellow circle below an orange triangle on a white background",
    "an orange square below a red circle on a white background",
)


def pipeline_directory() -> Path:
    """Return the directory to pass to ``DiffusionPipeline.from_pretrained``."""
    return Path(__file__).parent / "pipeline"
