"""Train the image autoencoder on rendered scenes and encode the training set with it."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from models import build_vae

STEPS = 4500
BATCH = 16
LEARNING_RATE = 3e-3
KL_WEIGHT = 1e-3
LOG_EVERY = 100


@dataclass
class TrainedVae:
    """The autoencoder, its loss log and the normalised latents of the training images."""

    model: AutoencoderKL
    log: list[dict[str, float]]
    latents: torch.Tensor


def to_signed(images: torch.Tensor) -> torch.Tensor:
    """Map stored bytes to the [-1, 1] range that the autoencoder works in."""
    return images.float() / 127.5 - 1


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 and squared error, plus the error of the image gradients, which keeps edges sharp."""
    error = output - target
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 4 * error.square().mean() + 0.5 * edges


def psnr(output: torch.Tensor, target: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of images in [-1, 1]."""
    return 10 * math.log10(4 / float((output - target).square().mean()))


def train_vae(images: torch.Tensor, *, seed: int, steps: int = STEPS) -> TrainedVae:
    """Train on uint8 images and return the averaged weights."""
    torch.manual_seed(seed)
    model = build_vae()
    average = copy.deepcopy(model)
    parameters: list[torch.Tensor] = list(model.parameters())
    averaged: list[torch.Tensor] = list(average.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0)
    log: list[dict[str, float]] = []
    wall, cpu = time.time(), time.process_time()
    for step in range(steps):
        warmup, remaining = min(1.0, (step + 1) / 100), 1 - step / steps
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * warmup * remaining + 1e-5
        x = to_signed(images[torch.randint(0, len(images), (BATCH,))])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            posterior = model.encode(x).latent_dist
            y = model.decode(posterior.sample()).sample.float()
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        loss = reconstruction_loss(y, x) + KL_WEIGHT * kl
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        with torch.no_grad():
            decay = min(0.998, (1 + step) / (10 + step))
            torch._foreach_lerp_(averaged, parameters, 1 - decay)
        if (step + 1) % LOG_EVERY == 0:
            entry = {
                "step": step + 1,
                "loss": round(loss.item(), 5),
                "psnr": round(psnr(y.detach(), x), 2),
                "kl": round(kl.item(), 3),
                "wall_s": round(time.time() - wall, 1),
                "cpu_s": round(time.process_time() - cpu, 1),
            }
            log.append(entry)
            print("vae", entry, flush=True)
    average.eval()
    return TrainedVae(average, log, encode(average, images))


@torch.no_grad()
def encode(model: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """Encode images, set the model's latent normalisation and return normalised latents."""
    chunks = []
    for batch in torch.split(images, 128):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            chunks.append(model.encode(to_signed(batch)).latent_dist.mean.float())
    latents = torch.cat(chunks)
    shift, scale = latents.mean().item(), 1 / latents.std().item()
    model.register_to_config(shift_factor=shift, scaling_factor=scale)
    return (latents - shift) * scale


@torch.no_grad()
def reconstruction_psnr(model: AutoencoderKL, images: torch.Tensor) -> float:
    """Measure how well uint8 images survive encoding and decoding in fp32."""
    x = to_signed(images)
    return psnr(model.decode(model.encode(x).latent_dist.mean).sample.clamp(-1, 1), x)
