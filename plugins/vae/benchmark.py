"""Times the variational bound and its gradients with respect to all weights."""

from collections.abc import Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import VAE

Weights = Mapping[str, Tensor]


def one_at_a_time(weights: Weights, x: Tensor, noise: Tensor) -> Tensor:
    """Compute equation 10 for one example after another, as in algorithm 1 without minibatches."""
    rows = zip(x, noise, strict=True)
    return torch.cat([distributions(weights, *(row[None] for row in pair)) for pair in rows])


def distributions(w: Weights, x: Tensor, noise: Tensor) -> Tensor:
    """The bound, computed with `torch.distributions`."""
    hidden = torch.tanh(F.linear(x, w["encoder.weight"], w["encoder.bias"]))
    mean = F.linear(hidden, w["mean.weight"], w["mean.bias"])
    log_variance = F.linear(hidden, w["log_variance.weight"], w["log_variance.bias"])
    q = torch.distributions.Normal(mean, torch.exp(log_variance / 2), validate_args=False)
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean), validate_args=False)
    z = q.loc + q.scale * noise
    hidden = torch.tanh(F.linear(z, w["decoder.weight"], w["decoder.bias"]))
    logits = F.linear(hidden, w["pixels.weight"], w["pixels.bias"])
    fit = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)
    return -fit - torch.distributions.kl_divergence(q, prior).sum(-1)


def cost(batch: int, pixels: int, hidden: int, latent: int, itemsize: int) -> dict[str, Cost]:
    """Cost of the bound, without elementwise operations."""
    products = 2 * batch * hidden * (2 * pixels + 3 * latent)
    weights = hidden * (2 * pixels + 3 * latent) + 2 * hidden + 2 * latent + pixels
    return Cost.products(products, (weights + batch * (pixels + latent)) * itemsize)


def inputs(generator: torch.Generator, batch: int, pixels: int, latent: int) -> tuple[Tensor, Tensor]:
    x = (torch.rand(batch, pixels, generator=generator) > 0.5).float()
    return x, torch.randn(batch, latent, generator=generator)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    sizes = bench.pick(
        smoke=((3, 7, 5, 2),),
        quick=((100, 784, 500, 20),),
        full=((100, 784, 500, 20), (1000, 784, 500, 20), (1000, 784, 500, 200)),
    )
    for batch, pixels, hidden, latent in sizes:
        make = partial(VAE, pixels, hidden, latent)
        yield Case.of_module(
            make,
            name="bound",
            axes={"batch": batch, "latent": latent},
            inputs=partial(inputs, batch=batch, pixels=pixels, latent=latent),
            variants=(
                Variant(name="one at a time", role="naive", call=one_at_a_time),
                Variant(name="torch.distributions", role="strong", call=distributions),
                Variant.of_module(make, name="equation 10", role="paper"),
            ),
            oracle=distributions,
            cost=cost(batch, pixels, hidden, latent, bench.dtype.itemsize),
        )
