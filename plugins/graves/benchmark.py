"""Times a mixture's log-density: component by component, with torch's distributions, and by logsumexp."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import Mixture


def one_by_one(outputs: Tensor, points: Tensor) -> Tensor:
    """Equations 23 to 26 as written, one component after the other."""
    components = outputs.shape[-1] // 6
    pi = outputs[..., :components].softmax(-1)
    total = torch.zeros_like(points[..., 0])
    for j in range(components):
        mean, sigma = (outputs[..., (k * components + 2 * j) :][..., :2] for k in (1, 3))
        sigma, rho = sigma.exp(), 0.999 * torch.tanh(outputs[..., 5 * components + j])
        x, y = ((points[..., :2] - mean) / sigma).unbind(-1)
        z = x**2 + y**2 - 2 * rho * x * y
        area = 2 * math.pi * sigma.prod(-1) * torch.sqrt(1 - rho**2)
        total = total + pi[..., j] * torch.exp(-z / (2 * (1 - rho**2))) / area
    end = torch.sigmoid(outputs[..., -1])
    return torch.log(total) + torch.log(torch.where(points[..., 2] == 1, end, 1 - end))


def distributions(outputs: Tensor, points: Tensor) -> Tensor:
    components = outputs.shape[-1] // 6
    pi, mean, sigma, rho, end = outputs.split((components, 2 * components, 2 * components, components, 1), -1)
    x, y = sigma.unflatten(-1, (components, 2)).exp().unbind(-1)
    rho = 0.999 * rho.tanh()
    rows = torch.stack((x, torch.zeros_like(x), rho * y, (1 - rho**2).sqrt() * y), -1)
    normal = MultivariateNormal(
        mean.unflatten(-1, (components, 2)), scale_tril=rows.unflatten(-1, (2, 2)), validate_args=False
    )
    mixture = MixtureSameFamily(Categorical(logits=pi, validate_args=False), normal, validate_args=False)
    stroke = torch.distributions.Bernoulli(logits=end[..., 0], validate_args=False)
    return mixture.log_prob(points[..., :2]) + stroke.log_prob(points[..., 2])


def logsumexp(outputs: Tensor, points: Tensor) -> Tensor:
    return Mixture.of(outputs).log_density(points)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    for count, components in bench.pick(
        smoke=((5, 3),), quick=((2000, 20),), full=((2000, 20), (50_000, 20))
    ):

        def inputs(
            generator: torch.Generator, count: int = count, components: int = components
        ) -> tuple[Tensor, Tensor]:
            points = torch.randn(count, 3, generator=generator)
            points[:, 2] = (points[:, 2] > 1).float()
            return torch.randn(count, 6 * components + 1, generator=generator) * 0.5, points

        yield Case(
            name="density of a mixture",
            axes={"points": count, "components": components},
            inputs=inputs,
            variants=(
                Variant(name="one by one", role="naive", call=one_by_one),
                Variant(name="torch distributions", role="strong", call=distributions),
                Variant(name="one logarithm of a sum", role="paper", call=logsumexp),
            ),
            gradients=(0,),
            cost=Cost.elementwise(count * components, itemsize=bench.dtype.itemsize, flops=25, tensors=6),
        )
