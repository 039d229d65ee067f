"""Times one of the thousand sampling steps without the network, and the sampling of pictures with it."""

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import Schedule, linear_schedule
from .unet import UNet

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


def pictures(network: UNet, x: Tensor, draws: Tensor) -> Tensor:
    """Algorithm 2 with the U-Net, on a chain that visits `len(draws)` of the thousand steps."""
    times = visited(len(draws)).to(x.device)
    schedule = Schedule(BETA.to(x.device)).of(times)
    for step in reversed(range(len(times))):
        t = torch.full((len(x),), step, device=x.device)
        x = schedule.step(x, t, network(x, times[t]), draws[step])
    return x


def visited(count: int) -> Tensor:
    """The last of the thousand steps and those before it at equal distances."""
    return (torch.arange(1, count + 1) * len(BETA)).div(count, rounding_mode="floor") - 1


def picture_by_picture(network: UNet, x: Tensor, draws: Tensor) -> Tensor:
    parts = zip(x.split(1), draws.split(1, 1), strict=True)
    return torch.cat([pictures(network, one, own) for one, own in parts])


def with_tables(network: UNet, x: Tensor, draws: Tensor) -> Tensor:
    """Equation 11 as two fused additions per step, with factors that are plain numbers."""
    times = visited(len(draws))
    schedule = Schedule(BETA).of(times)
    a = (1 - schedule.beta).rsqrt()
    of_noise = -a * schedule.beta / (1 - schedule.alpha_bar).sqrt()
    table = zip(times.tolist(), a.tolist(), of_noise.tolist(), schedule.beta.sqrt().tolist(), strict=True)
    for step, (time, own, noise, spread) in reversed(list(enumerate(table))):
        predicted = network(x, torch.full((len(x),), time, device=x.device))
        x = torch.add(x * own, predicted, alpha=noise)
        if step > 0:
            x = x.add_(draws[step], alpha=spread)
    return x


def channels_last(weights: Mapping[str, Tensor], x: Tensor, draws: Tensor) -> tuple[object, ...]:
    """The same data in channels-last memory format, which suits convolutions."""
    last = torch.channels_last
    filters = {n: w.contiguous(memory_format=last) if w.dim() == 4 else w for n, w in weights.items()}
    return filters, x.contiguous(memory_format=last), draws


def picture_case(bench: Bench) -> Case:
    width, multiples, groups, batch, side, steps = bench.pick(
        smoke=(8, (1, 2), 4, 2, 4, 3),
        quick=(32, (1, 2, 2), 8, 2, 16, 5),
        full=(128, (1, 2, 2, 2), 32, 2, 32, 20),
    )
    make = partial(UNet, width=width, multiples=multiples, dropout=0.0, groups=groups)
    shape = batch, 3, side, side
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = make()
        network(torch.empty(shape), torch.empty(batch, dtype=torch.long))
    weights = sum(weight.numel() for weight in network.parameters())
    values = torch.Size(shape).numel()
    return Case.of_module(
        make,
        name="pictures",
        axes={"steps": steps, "side": side, "pictures": batch, "width": width},
        inputs=lambda g: (torch.randn(shape, generator=g), torch.randn(steps, *shape, generator=g)),
        variants=(
            Variant.of_module(make, picture_by_picture, name="picture by picture", role="naive"),
            Variant.of_module(
                make, with_tables, name="channels last, fused steps", role="strong", prepare=channels_last
            ),
            Variant.of_module(make, pictures, name="algorithm 2", role="paper"),
        ),
        cost={
            "forward": Cost(
                flops=steps * counter.get_total_flops(),
                bytes=(steps * (weights + values) + 2 * values) * bench.dtype.itemsize,
            )
        },
        together=True,
    )


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
    yield picture_case(bench)
