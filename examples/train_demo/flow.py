"""Train the text encoders and the transformer together with the flow-matching objective."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from diffusers import FluxPipeline
from models import Denoiser, build_denoiser
from text import MAX_TOKENS
from torch import nn

STEPS = 4000
BATCH = 128
MUON_RATE = 1.5e-3
ADAM_RATE = 1.5e-3
REFINING_STEPS = 500
REFINING_PEAK = 0.6
EMA_DECAY = 0.998
LOG_EVERY = 100


@dataclass
class Dataset:
    """Latents (count, 16, 8, 8), the token ids of their captions and how often to draw each."""

    latents: torch.Tensor
    clip_ids: torch.Tensor
    t5_ids: torch.Tensor
    weights: torch.Tensor


@dataclass
class TrainedFlow:
    """The averaged networks and their loss log."""

    denoiser: Denoiser
    log: list[dict[str, float]]


def predict(
    denoiser: Denoiser,
    noisy: torch.Tensor,
    sigma: torch.Tensor,
    clip_ids: torch.Tensor,
    t5_ids: torch.Tensor,
) -> torch.Tensor:
    """Predict the velocity from packed noisy latents, conditioned as FluxPipeline does it."""
    side = int(noisy.shape[1] ** 0.5)
    image_ids = FluxPipeline._prepare_latent_image_ids(1, side, side, "cpu", torch.float32)
    velocity: torch.Tensor = denoiser.transformer(
        hidden_states=noisy,
        timestep=sigma,
        encoder_hidden_states=denoiser.t5(t5_ids)[0],
        pooled_projections=denoiser.clip(clip_ids).pooler_output,
        txt_ids=torch.zeros(MAX_TOKENS, 3),
        img_ids=image_ids,
        return_dict=False,
    )[0]
    return velocity


def sample_sigma(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw noise levels: half logit-normal, half uniform so that pure noise is well trained.

    With few sampling steps the first one, at sigma 1, decides the whole composition, and the
    logit-normal distribution alone hardly ever goes there.
    """
    bell = torch.sigmoid(torch.randn(count, generator=generator) + 0.2)
    flat = torch.rand(count, generator=generator)
    return torch.where(torch.rand(count, generator=generator) < 0.5, bell, flat)


def build_optimizers(networks: nn.ModuleList) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks (in two halves), AdamW for everything else."""
    muon: list[nn.Parameter] = []
    adam: list[nn.Parameter] = []
    for name, parameter in networks.named_parameters():
        in_block = "block" in name or "layers" in name
        is_matrix = parameter.ndim == 2 and "norm" not in name and "relative" not in name
        (muon if in_block and is_matrix else adam).append(parameter)
    muon.sort(key=torch.numel)
    return [
        *(
            torch.optim.Muon(half, lr=MUON_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
            for half in (muon[::2], muon[1::2])
        ),
        torch.optim.AdamW(adam, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def rate_factor(step: int, steps: int) -> float:
    """Warm up, hold for a third of the phase, then fall linearly to almost nothing."""
    warmup = min(1.0, (step + 1) / 150)
    return warmup * min(1.0, (1 - step / steps) / 0.65) + 1e-3


@dataclass
class Batch:
    """Packed clean latents, their noise and noise levels, and their captions."""

    clean: torch.Tensor
    noise: torch.Tensor
    sigma: torch.Tensor
    clip_ids: torch.Tensor
    t5_ids: torch.Tensor

    def split(self, parts: int) -> list[Batch]:
        """Divide the batch evenly."""
        fields = [
            tensor.chunk(parts)
            for tensor in (self.clean, self.noise, self.sigma, self.clip_ids, self.t5_ids)
        ]
        return [Batch(*part) for part in zip(*fields, strict=True)]


def gradients(
    denoiser: Denoiser, parameters: Sequence[torch.Tensor], batch: Batch
) -> tuple[torch.Tensor, ...]:
    """Return the flow-matching loss of a batch, followed by its gradients."""
    noisy = torch.lerp(batch.clean, batch.noise, batch.sigma[:, None, None])
    # The cache of cast weights is shared between threads and emptied by whichever is first.
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        velocity = predict(denoiser, noisy, batch.sigma, batch.clip_ids, batch.t5_ids)
    loss = (velocity.float() - (batch.noise - batch.clean)).square().mean()
    return (loss.detach(), *torch.autograd.grad(loss, parameters))


def train_flow(
    data: Dataset,
    *,
    seed: int,
    steps: int = STEPS,
    start: Denoiser | None = None,
    peak: float = 1.0,
    threads: int = 2,
    on_checkpoint: Callable[[Denoiser], None] | None = None,
) -> TrainedFlow:
    """Train for a fixed number of steps; hand out the averaged weights ten times on the way.

    Args:
        data: What to train on.
        seed: Seed of the initial weights, the batches and the noise.
        steps: Number of optimizer steps.
        start: Networks to go on from, instead of new ones.
        peak: Factor on the learning rates.
        threads: Number of cores to use.
        on_checkpoint: Called with the averaged networks after every tenth of the steps.

    Args:
        data: What to train on.
        seed: Seed of the initial weights, the batches and the noise.
        steps: Number of optimizer steps.
        start: Networks to go on from, instead of new ones.
        peak: Factor on the learning rates.
        threads: Number of cores to use.
        on_checkpoint: Called with the averaged networks after every tenth of the steps.

    Every thread works alone on its part of the batch. That is as fast as sharing each operation
    out, and unlike it hardly suffers when another program holds one of the cores for a moment.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    generator = torch.Generator().manual_seed(seed)
    denoiser = build_denoiser() if start is None else start
    networks = denoiser.modules()
    average = copy.deepcopy(denoiser)
    parameters: list[torch.Tensor] = list(networks.parameters())
    averaged: list[torch.Tensor] = list(average.modules().parameters())
    optimizers = build_optimizers(networks)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    count, channels, side, _ = data.latents.shape
    packed = FluxPipeline._pack_latents(data.latents, count, channels, side, side)
    log: list[dict[str, float]] = []
    total = torch.zeros(())
    wall, cpu = time.time(), time.process_time()
    for step in range(steps):
        for optimizer, rate in zip(optimizers, rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * peak * rate_factor(step, steps)
        index = torch.multinomial(data.weights, BATCH, replacement=True, generator=generator)
        clean = packed[index]
        batch = Batch(
            clean=clean,
            noise=torch.randn(clean.shape, generator=generator),
            sigma=sample_sigma(BATCH, generator),
            clip_ids=data.clip_ids[index],
            t5_ids=data.t5_ids[index],
        )
        parts = pool.map(lambda part: gradients(denoiser, parameters, part), batch.split(threads))
        loss, *grads = (torch.stack(same).mean(0) for same in zip(*parts, strict=True))
        for parameter, gradient in zip(parameters, grads, strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(parameters, 1.0)
        list(pool.map(lambda optimizer: optimizer.step(), optimizers))
        with torch.no_grad():
            torch._foreach_lerp_(averaged, parameters, 1 - min(EMA_DECAY, (1 + step) / (20 + step)))
        total += loss
        if (step + 1) % LOG_EVERY == 0:
            entry = {
                "step": step + 1,
                "loss": round(total.item() / LOG_EVERY, 5),
                "wall_s": round(time.time() - wall, 1),
                "cpu_s": round(time.process_time() - cpu, 1),
            }
            total.zero_()
            log.append(entry)
            print("flow", entry, flush=True)
        if on_checkpoint is not None and (step + 1) % (steps // 10) == 0:
            on_checkpoint(copy.deepcopy(average))
    pool.shutdown()
    return TrainedFlow(average, log)
