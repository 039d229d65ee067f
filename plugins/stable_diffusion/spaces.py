"""Diffusion in latents and in pixels: the data of both spaces, their compute, training and sampling."""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from readtrack.plugin import Run, Trial

from ..clip import TextTower
from ..ddpm import Schedule
from ..ddpm.model import Times
from ..vae import divergence
from . import toy
from .autoencoder import Latents
from .benchmark import forward_flops
from .model import Diffusion, Guide, Predict, denoise, scaled_linear_schedule
from .toy import Pictures, SmallAutoencoder
from .unet import UNet

BATCH = 32  # latents per update
WIDTH = 32  # channels of the U-Net
AUTOENCODER_BATCH = 32
EMPTY = 0.1  # fraction of captions that are left empty in training
Scale = Float[Tensor, "1 latent 1 1"]
Texts = Int64[Tensor, "n 4"]


class Space(NamedTuple):
    """The space in which noise is added: its data, the map to pictures, its U-Net and its cost."""

    train: Latents
    choose: Latents
    decode: Callable[[Latents], Pictures]
    limit: float  # predicted data are clamped to [-limit, limit]
    batch: int  # size of a batch
    spent: float  # FLOPs before the first update
    widths: tuple[int, ...] = (WIDTH,)  # channels of the U-Net at each resolution


class Trained(NamedTuple):
    space: Space
    network: Diffusion


Make = Callable[[Trial], Space]


# The spaces


def pixels(at: Trial) -> Space:
    """The pictures themselves. Their U-Net has a second resolution, the latents' 4 × 4.

    A batch is a quarter as large, so it costs about as much as one of latents.
    """
    widths = (WIDTH, WIDTH)
    return Space(at.world.train.x, at.world.choose.x, as_they_are, 1.0, BATCH // 4, 0.0, widths)


def patches(at: Trial) -> Space:
    """For a break: patches of 2 × 2 pixels are the channels, so an update costs as much as one in latents."""
    train, choose = (F.pixel_unshuffle(part.x, 2) for part in (at.world.train, at.world.choose))
    return Space(train, choose, partial(F.pixel_shuffle, upscale_factor=2), 1.0, BATCH, 0.0)


def averages(at: Trial) -> Space:
    """For a break: averages of 2 × 2 pixels, which keep the latents' resolution without an autoencoder."""
    train, choose = (F.avg_pool2d(part.x, 2) for part in (at.world.train, at.world.choose))
    enlarge = partial(F.interpolate, scale_factor=2.0, mode="bilinear")
    return Space(train, choose, enlarge, 1.0, BATCH, 0.0)


def as_they_are(x: Pictures) -> Pictures:
    return x


def latents(at: Trial) -> Space:
    return encoded(at, at.stage(autoencoder))


def latents_of_untrained(at: Trial) -> Space:
    """For a break: the autoencoder has its initial weights."""
    return encoded(at, at.stage(untrained_autoencoder))


@torch.no_grad()
def encoded(at: Trial, network: SmallAutoencoder) -> Space:
    """The means of the autoencoder's latents, each channel with mean 0 and variance 1."""
    z, choose = (network.encode(part.x)[0] for part in (at.world.train, at.world.choose))
    mean, std = z.mean((0, 2, 3), keepdim=True), z.std((0, 2, 3), keepdim=True)
    spent = autoencoder_steps(at.run) * autoencoder_flops()
    decode = partial(decoded, network, mean, std)
    return Space((z - mean) / std, (choose - mean) / std, decode, 3.0, BATCH, spent)


def decoded(network: SmallAutoencoder, mean: Scale, std: Scale, z: Latents) -> Pictures:
    return network.decode(z * std + mean)


def untrained_autoencoder(at: Trial) -> SmallAutoencoder:
    return SmallAutoencoder().to(at.run.device, at.run.dtype).requires_grad_(False)


def autoencoder(at: Trial) -> SmallAutoencoder:
    """Section 3.1: minimise the reconstruction error of a sampled latent, and a small KL penalty."""
    run, x = at.run, at.world.train.x
    network = SmallAutoencoder().to(run.device, run.dtype)
    generator, steps = at.generator("autoencoder's batches"), at.length(autoencoder_steps(run))
    optimizer = torch.optim.Adam(network.parameters(), 0.005, fused=True)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for step in at.steps(steps, f"{at.name}, autoencoder", state=(network, optimizer, decay)):
        some = x[torch.randint(len(x), (AUTOENCODER_BATCH,), generator=generator)]
        noise = torch.randn(len(some), toy.LATENT, toy.GRID, toy.GRID, generator=generator).to(some)
        again, mean, log_variance = network(some, noise)
        penalty = divergence(mean.flatten(1), log_variance.flatten(1)).mean() / mean[0].numel()
        loss = F.mse_loss(again, some) + 1e-4 * penalty
        at.descend(loss, optimizer, step=step, metric="autoencoder's loss")
        decay.step()
    return network.requires_grad_(False)


# Compute


def autoencoder_steps(run: Run) -> int:
    return run.pick(smoke=3, quick=500, full=2000)


@cache
def autoencoder_flops() -> float:
    """FLOPs of one update of the autoencoder: three times those of the forward pass."""
    x = torch.zeros(AUTOENCODER_BATCH, 3, toy.SIDE, toy.SIDE)
    noise = torch.zeros(AUTOENCODER_BATCH, toy.LATENT, toy.GRID, toy.GRID)
    return 3 * forward_flops(SmallAutoencoder, x, noise)


@cache
def update_flops(shape: tuple[int, ...], widths: tuple[int, ...], attention: tuple[int, ...]) -> float:
    """FLOPs of one update of the diffusion network on data of this shape."""
    t, ids = torch.zeros(shape[0]).long(), torch.zeros(shape[0], toy.LENGTH).long()
    return 3 * forward_flops(partial(make_network, shape[1], widths, attention), torch.zeros(shape), t, ids)


def updates(run: Run, space: Space, in_latents: int) -> int:
    """The number of updates that cost as much as the autoencoder and `in_latents` updates in latents."""
    latent = update_flops((BATCH, toy.LATENT, toy.GRID, toy.GRID), (WIDTH,), attended(run))
    total = autoencoder_steps(run) * autoencoder_flops() + in_latents * latent
    return round((total - space.spent) / update_cost(run, space))


def update_cost(run: Run, space: Space) -> float:
    """FLOPs of one update in this space."""
    return update_flops((space.batch, *space.train.shape[1:]), space.widths, attended(run))


# Training and sampling


def attended(run: Run) -> tuple[int, ...]:
    """The stages whose blocks attend to the words. Without them, only the U-Net's middle does.

    Attention in every block makes an update one and a half times as long. It only pays off after about 1,000
    updates, when the pictures begin to have their caption's digit.
    """
    return run.pick(smoke=(), quick=(), full=(0, 1))


def make_network(channels: int, widths: tuple[int, ...], attention: tuple[int, ...]) -> Diffusion:
    text = TextTower(toy.END + 1, context=toy.LENGTH, width=32, heads=2, layers=1, dim=32)
    return Diffusion(text, UNet(channels, widths, 1, context=32, heads=2, attention=attention, groups=4))


def train(at: Trial, space: Space, ids: Texts, rate: float, steps: int) -> Diffusion:
    """Train by equation 3. A tenth of the captions are empty, to train the prediction without text."""
    run = at.run
    network = make_network(space.train.shape[1], space.widths, attended(run)).to(run.device, run.dtype)
    network = network.to(memory_format=torch.channels_last)  # on a CPU, a third faster for images of 8 × 8
    optimizer = torch.optim.Adam(network.parameters(), rate, fused=True)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    generator, schedule = at.generator("batches"), scaled_linear_schedule()
    name = f"{at.name}, {steps} updates, rate {rate:g}"
    run.phase("train")
    for step in at.steps(steps, name, state=(network, optimizer, decay)):
        rows = torch.randint(len(space.train), (space.batch,), generator=generator)
        silent = torch.rand(space.batch, 1, generator=generator) < EMPTY
        z, t, noise = noisy(schedule, space.train[rows], generator)
        found = network(z, t, ids[rows].masked_fill(silent.to(run.device), toy.END))
        at.descend(F.mse_loss(found, noise), optimizer, step=step, metric="loss", arm=name)
        decay.step()
    return network


def noisy(schedule: Schedule, z: Latents, generator: torch.Generator) -> tuple[Latents, Times, Latents]:
    """Data with noise added at random times, the times, and the noise."""
    t = torch.randint(len(schedule.beta), (len(z),), generator=generator)
    noise = torch.randn(z.shape, generator=generator).to(z)
    schedule = Schedule(schedule.beta.to(z.device))
    return schedule.add_noise(z, t.to(z.device), noise), t.to(z.device), noise


def noise_error(at: Trial, space: Space, network: Diffusion) -> float:
    """The validation loss, with the same times and noise for all networks of a space."""
    z, t, noise = noisy(scaled_linear_schedule(), space.choose, at.run.data("noise, choose", "choose"))
    with at.run.evaluating(network):
        return F.mse_loss(network(z, t, at.world.choose.ids), noise).item()


def pictures(
    run: Run,
    trained: Trained,
    ids: Texts,
    generator: torch.Generator,
    guide: Guide | None = None,
    scale: float = 1.0,
    temperature: float = 1.0,
) -> Pictures:
    """One picture for every caption, in [-1, 1], by DDIM.

    guide        combines the noise predicted with the text and without it; None predicts with the text only
    temperature  standard deviation of the initial noise
    """
    space, network = trained
    noise = temperature * torch.randn(len(ids), *space.train.shape[1:], generator=generator).to(space.train)
    schedule = Schedule(scaled_linear_schedule().beta.to(run.device))
    steps = run.pick(smoke=2, quick=10, full=50)
    with run.evaluating(network):
        predict: Predict = lambda z, t: network(z, t, ids)  # noqa: E731
        if guide is not None:
            predict = network.with_text(ids, torch.full_like(ids, toy.END), scale, guide)
        return space.decode(denoise(schedule, predict, noise, steps, space.limit)).clamp(-1, 1)
