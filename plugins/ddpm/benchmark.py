"""Times one of the thousand sampling steps, without the network's forward pass."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import Schedule, linear_schedule

BETA = linear_schedule().beta  # not an input, because inputs are cast to the measured precision


def by_posterior(x: Tensor, noise: Tensor, draw: Tensor, t: Tensor) -> Tensor:
    """The step computed from the predicted data (section 3.2, before equation 11), with all products
    recomputed."""
    schedule = Schedule(BETA.to(x.device))
    mean, _ = schedule.posterior(schedule.predict_x0(x, t, noise), x, t)
    spread = torch.where(t > 0, BETA.to(x.device)[t].sqrt(), 0.0)
    return mean + spread.to(x).view(-1, 1, 1, 1) * draw


def from_tables(x: Tensor, noise: Tensor, draw: Tensor, t: Tensor) -> Tensor:
    """Equation 11 as x * a + noise * b + draw * c, two fused additions."""
    beta = BETA.to(x.device)
    beta_t = beta[t]
    kept = (1 - beta).cumprod(0)[t]
    a = (1 - beta_t).rsqrt()
    factors = (a, -a * beta_t / (1 - kept).sqrt(), torch.where(t > 0, beta_t.sqrt(), 0.0))
    first, second, third = (one.to(x).view(-1, 1, 1, 1) for one in factors)
    return torch.addcmul(torch.addcmul(x * first, noise, second), draw, third)


def equation_11(x: Tensor, noise: Tensor, draw: Tensor, t: Tensor) -> Tensor:
    return Schedule(BETA.to(x.device)).step(x, t, noise, draw)


def step_inputs(generator: torch.Generator, batch: int, side: int) -> tuple[Tensor, ...]:
    images = torch.randn(3, batch, 3, side, side, generator=generator)
    # For other t the naive variant subtracts nearly equal numbers, and is too inexact for a comparison.
    t = torch.randint(100, 400, (batch,), generator=generator)
    return *images.unbind(0), t


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    sizes = bench.pick(smoke=((2, 4),), quick=((64, 32),), full=((64, 32), (64, 256)))
    for batch, side in sizes:
        values = batch * 3 * side * side
        yield Case(
            name="a step back",
            axes={"side": side, "batch": batch},
            inputs=partial(step_inputs, batch=batch, side=side),
            variants=(
                Variant(name="by the expected data", role="naive", call=by_posterior),
                Variant(name="fused multiply-adds", role="strong", call=from_tables),
                Variant(name="equation 11", role="paper", call=equation_11),
            ),
            cost={"forward": Cost(flops=5 * values, bytes=4 * values * bench.dtype.itemsize)},
            gradients=(0, 1, 2),
        )
