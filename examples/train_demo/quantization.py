"""Measure how far quantizing the transformer's linear layers moves the demo's images.

`python examples/train_demo/quantization.py DIR` draws the demo prompts with the bf16 weights,
then with every linear layer of the transformer quantized, from the same seeds, and prints the
distance (PSNR, FLIP) and the prompt-following scores of each width. Rounding the weights in place
(no kernels, any width) comes first, then optimum-quanto, which compiles a kernel on first use.
"""

from __future__ import annotations

import argparse
import copy
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import flip_evaluator
import torch
from check import draw, load, score
from diffusers import DiffusionPipeline
from optimum.quanto import freeze, qfloat8, qint2, qint4, qint8, quantize
from torch import nn
from torchvision.utils import save_image
from world import sample_scenes

GROUP_SIZE = 128
SEED = 4321
FP8_MAXIMUM = 448.0


def round_int(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Round to 2**bits levels between each group's extremes; int8 per output channel."""
    columns = weight.shape[1]
    group = GROUP_SIZE if bits < 8 and columns % GROUP_SIZE == 0 else columns
    groups = weight.float().reshape(weight.shape[0], -1, group)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    step = ((high - low) / (2**bits - 1)).clamp_min(1e-8)
    rounded: torch.Tensor = ((groups - low) / step).round() * step + low
    return rounded.reshape(weight.shape)


def round_fp8(weight: torch.Tensor) -> torch.Tensor:
    """Round to float8 e4m3 with one scale per output channel."""
    values = weight.float()
    scale = values.abs().amax(1, keepdim=True).clamp_min(1e-8) / FP8_MAXIMUM
    rounded: torch.Tensor = (values / scale).to(torch.float8_e4m3fn).float() * scale
    return rounded


def round_weights(model: nn.Module, rounding: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Replace the weight of every linear layer by its rounded value."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.data = rounding(module.weight.data).to(module.weight.dtype)


def quantize_quanto(model: nn.Module, weights: object) -> None:
    """Quantize every linear layer's weight with optimum-quanto."""
    quantize(model, weights=weights)
    freeze(model)


VARIANTS: dict[str, Callable[[nn.Module], None]] = {
    "rounded int8": lambda model: round_weights(model, lambda w: round_int(w, 8)),
    "rounded fp8": lambda model: round_weights(model, round_fp8),
    "rounded int4": lambda model: round_weights(model, lambda w: round_int(w, 4)),
    "rounded int3": lambda model: round_weights(model, lambda w: round_int(w, 3)),
    "rounded int2": lambda model: round_weights(model, lambda w: round_int(w, 2)),
    "quanto qint8": lambda model: quantize_quanto(model, qint8),
    "quanto qfloat8": lambda model: quantize_quanto(model, qfloat8),
    "quanto qint4": lambda model: quantize_quanto(model, qint4),
    "quanto qint2": lambda model: quantize_quanto(model, qint2),
}


def psnr(images: torch.Tensor, reference: torch.Tensor) -> float:
    """Mean over images of the peak signal-to-noise ratio."""
    errors = (images - reference).square().flatten(1).mean(1).clamp_min(1e-10)
    return float((-10 * errors.log10()).mean())


def flip(images: torch.Tensor, reference: torch.Tensor) -> float:
    """Mean over images of the LDR-FLIP perceptual difference."""
    total = 0.0
    for image, target in zip(images, reference, strict=True):
        pair = [t.permute(1, 2, 0).contiguous().numpy() for t in (target, image)]
        total += float(flip_evaluator.evaluate(*pair, "LDR")[1])
    return total / len(images)


def main() -> None:
    """Print one line per quantized variant and optionally write a comparison grid."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", help="only variants whose name contains this")
    parser.add_argument("--grid", type=Path, help="write 8 images per variant as a PNG")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(arguments.threads)
    scenes = sample_scenes(arguments.count, SEED, held_out=True)
    prompts = [scene.caption() for scene in scenes]
    pipeline: DiffusionPipeline = load(arguments.pipeline)
    original = pipeline.transformer
    reference = draw(pipeline, prompts, seed=SEED, steps=arguments.steps)
    rows = [reference[:8]]

    def report(name: str, images: torch.Tensor) -> None:
        rates = score(images, scenes)
        decibels = psnr(images, reference)
        print(
            f"{name:16s} PSNR {math.inf if decibels > 99 else decibels:6.2f}"
            f"  FLIP {flip(images, reference):.4f}"
            f"  color+position {rates['color_and_position']:.3f}"
            f"  shape {rates['shape']:.3f}  all {rates['all']:.3f}",
            flush=True,
        )

    report("bf16", reference)
    report("bf16, other seed", draw(pipeline, prompts, seed=SEED + 999, steps=arguments.steps))
    for name, apply in VARIANTS.items():
        if arguments.only and arguments.only not in name:
            continue
        pipeline.transformer = copy.deepcopy(original)
        apply(pipeline.transformer)
        images = draw(pipeline, prompts, seed=SEED, steps=arguments.steps)
        report(name, images)
        rows.append(images[:8])
    if arguments.grid is not None:
        save_image(torch.cat(rows), arguments.grid, nrow=8, padding=2)


if __name__ == "__main__":
    main()
