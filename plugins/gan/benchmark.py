"""Times the losses of both players with the gradients of all weights, and the generation of images."""

import functools
from collections.abc import Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import Game, Generator

Weights = Mapping[str, Tensor]


def generate(w: Weights, z: Tensor) -> Tensor:
    hidden = F.relu(F.linear(z, w["generator.first.weight"], w["generator.first.bias"]))
    hidden = F.relu(F.linear(hidden, w["generator.second.weight"], w["generator.second.bias"]))
    return F.linear(hidden, w["generator.pixels.weight"], w["generator.pixels.bias"]).sigmoid()


def discriminate(w: Weights, x: Tensor) -> Tensor:
    for name in ("first", "second"):
        weight, bias = (w[f"discriminator.{name}.linear.{kind}"] for kind in ("weight", "bias"))
        x = F.linear(x, weight, bias).unflatten(-1, (-1, 3)).amax(-1)
    return F.linear(x, w["discriminator.out.weight"], w["discriminator.out.bias"])[..., 0]


def as_written(w: Weights, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Algorithm 1 with logarithms of probabilities. Generates the samples once for each player."""
    real, rejected = discriminate(w, x).sigmoid(), 1 - discriminate(w, generate(w, z).detach()).sigmoid()
    wants = -(real.log().mean() + rejected.log().mean())
    return wants, -discriminate(w, generate(w, z)).sigmoid().log().mean()


def in_one_batch(w: Weights, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Generates samples once, and classifies data and samples in one batch with torch's cross-entropy."""
    fake = generate(w, z)
    labels = torch.cat((torch.ones_like(x[:, 0]), torch.zeros_like(x[:, 0])))
    judged = discriminate(w, torch.cat((x, fake.detach())))
    wants = 2 * F.binary_cross_entropy_with_logits(judged, labels)
    again = discriminate(w, fake)
    return wants, F.binary_cross_entropy_with_logits(again, torch.ones_like(again))


def cost(batch: int, pixels: int, hidden: int, latent: int, itemsize: int) -> dict[str, Cost]:
    """One pass through the generator and three through the discriminator, without elementwise operations."""
    narrow = hidden // 2
    made = hidden * (latent + hidden + pixels)
    judged = 3 * narrow * (pixels + narrow) + narrow
    return Cost.products(
        2 * batch * (made + 3 * judged), (made + judged + batch * (pixels + latent)) * itemsize
    )


def inputs(generator: torch.Generator, batch: int, pixels: int, latent: int) -> tuple[Tensor, Tensor]:
    return torch.rand(batch, pixels, generator=generator), torch.randn(batch, latent, generator=generator)


@functools.cache
def made(latent: int, hidden: int, pixels: int) -> Generator:
    """A generator with random weights, cached so that only the generation of images is timed."""
    return Generator(latent, hidden, pixels)


@torch.no_grad()
def images(hidden: int, pixels: int, rows: int, z: Tensor) -> dict[str, float]:
    """Generate an image from each row of z, in batches of `rows`."""
    generator = made(z.shape[1], hidden, pixels).to(z)
    found = torch.cat([generator(part) for part in z.split(rows)])
    return {"reached": float(found.isfinite().all()), "images": float(len(found))}


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    sizes = bench.pick(
        smoke=((4, 9, 8, 3),),
        quick=((100, 784, 480, 100),),
        full=((100, 784, 480, 100), (100, 784, 1200, 100), (1000, 784, 1200, 100)),
    )
    for batch, pixels, hidden, latent in sizes:
        make = partial(Game, pixels, hidden, latent, dropout=0.0)
        yield Case.of_module(
            make,
            name="both losses",
            axes={"hidden": hidden, "batch": batch},
            inputs=partial(inputs, batch=batch, pixels=pixels, latent=latent),
            variants=(
                Variant(name="algorithm 1 as written", role="naive", call=as_written),
                Variant(name="one batch, torch's cross-entropy", role="strong", call=in_one_batch),
                Variant.of_module(make, name="softplus of logits", role="paper"),
            ),
            cost=cost(batch, pixels, hidden, latent, bench.dtype.itemsize),
        )
    count, pixels, hidden, latent = bench.pick(
        smoke=(4, 9, 8, 3), quick=(1000, 784, 1200, 100), full=(10_000, 784, 1200, 100)
    )
    batches = (("one at a time", "naive", 1), ("batches of 64", "strong", 64), ("one batch", "paper", count))
    yield Case(
        name="images",
        axes={"hidden": hidden, "images": count},
        inputs=lambda g: (torch.randn(count, latent, generator=g),),
        variants=[
            Variant(name=name, role=role, call=partial(images, hidden, pixels, rows))
            for name, role, rows in batches
        ],
        cost={"until": None},
    )
