"""Times the kernel, one more sample, and images read pixel by pixel by the experiment's network."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..ssm import convolve
from .experiment import CHANNELS, ORDER, SIDE, PixelReader
from .model import (
    Recurrence,
    discretised,
    hippo_dplr,
    kernel_by_cauchy,
    kernel_by_powers,
    recurrent_c,
    whole,
)


def system(generator: torch.Generator, channels: int, order: int) -> tuple[Tensor, ...]:
    """HiPPO's Λ, P, B and a random c̃ as pairs of real numbers, and logarithmically spaced step sizes."""
    parts = [torch.view_as_real(part.cfloat()).repeat(channels, 1, 1) for part in hippo_dplr(order)]
    c_tilde = torch.randn(channels, order // 2, 2, generator=generator)
    return *parts, c_tilde, torch.logspace(-2, -1, channels)


def complexes(*pairs: Tensor) -> list[Tensor]:
    return [
        torch.view_as_complex(p.to(torch.promote_types(p.dtype, torch.float32)).contiguous()) for p in pairs
    ]


def powers(lamb: Tensor, p: Tensor, b: Tensor, c_tilde: Tensor, step: Tensor, *, time: int) -> Tensor:
    step = step.to(torch.promote_types(step.dtype, torch.float32))
    lamb, p, b, c_tilde = complexes(lamb, p, b, c_tilde)
    return kernel_by_powers(lamb, p, b, recurrent_c(lamb, p, b, c_tilde, step, time), step, time)


def doubling(lamb: Tensor, p: Tensor, b: Tensor, c_tilde: Tensor, step: Tensor, *, time: int) -> Tensor:
    """Each iteration doubles the number of vectors ā^k b̄: ā^m times the first m vectors gives the next m."""
    step = step.to(torch.promote_types(step.dtype, torch.float32))
    lamb, p, b, c_tilde = complexes(lamb, p, b, c_tilde)
    c = whole(recurrent_c(lamb, p, b, c_tilde, step, time))
    power, state = discretised(lamb, p, b, step)
    vectors = state[..., None]
    while vectors.shape[-1] < time:
        vectors = torch.cat((vectors, power @ vectors), -1)
        power = power @ power
    return (c[:, None] @ vectors[..., :time])[:, 0].real


def cauchy(lamb: Tensor, p: Tensor, b: Tensor, c_tilde: Tensor, step: Tensor, *, time: int) -> Tensor:
    step = step.to(torch.promote_types(step.dtype, torch.float32))
    return kernel_by_cauchy(*complexes(lamb, p, b, c_tilde), step, time)


def kernels(time: int, channels: int, order: int, itemsize: int) -> Case:
    numbers = channels * (4 * order + time)
    return Case(
        name="kernel",
        axes={"samples": time, "channels": channels, "order": order},
        inputs=partial(system, channels=channels, order=order),
        variants=(
            Variant(name="by powers", role="naive", call=partial(powers, time=time)),
            Variant(name="doubling", role="strong", call=partial(doubling, time=time)),
            Variant(name="Cauchy sums", role="paper", call=partial(cauchy, time=time)),
        ),
        tolerance=1e-3 if itemsize >= 4 else 0.05,
        # A complex division and four complex multiplications for each root and pole.
        cost={"forward": Cost(flops=40 * channels * order * (time // 2 + 1), bytes=numbers * itemsize)},
    )


# One more sample

Past = tuple[Tensor, Tensor]  # past inputs (batch, time, channels), and the kernel
Buffer = tuple[Tensor, Tensor, int]  # past inputs with free entries (channels, batch, time), kernel, length
State = tuple[tuple[Tensor, ...], Tensor]  # a `Recurrence`, and x
Dense = tuple[Tensor, Tensor, Tensor]  # the matrices of `as_matrices`, and x (channels, 2 · half, batch)


def convolved(past: Past, u: Tensor) -> tuple[Tensor, Past]:
    """Recompute all outputs, and return the last one."""
    seen, kernel = past
    seen = torch.cat((seen, u[:, None]), 1)
    return convolve(seen.mT, kernel[:, : seen.shape[1]])[..., -1], (seen, kernel)


def in_a_buffer(past: Buffer, u: Tensor) -> tuple[Tensor, Buffer]:
    """Compute only the last output: the reversed kernel times the past inputs, which are not copied."""
    buffer, kernel, length = past
    buffer[..., length] = u.T
    length += 1
    y = kernel[:, None, -length:] @ buffer[..., :length].mT
    return y[:, 0].T.to(u.dtype), (buffer, kernel, length)


def advance(state: State, u: Tensor) -> tuple[Tensor, State]:
    recurrence, x = state
    y, x = Recurrence(*recurrence).step(u.to(recurrence[-1].dtype), x)
    return y.to(u.dtype), (recurrence, x)


def as_matrices(recurrence: Recurrence) -> tuple[Tensor, Tensor]:
    """Real matrices that map x_{k-1} and u_k to x_k and y_k, which is the last row (equation 3).

    Shapes are (channels, 2 · half + 1, 2 · half) and (channels, 2 · half + 1, 1).
    """
    channels, half = recurrence.b.shape
    units = torch.eye(2 * half, dtype=recurrence.bypass.dtype, device=recurrence.bypass.device)
    states = torch.view_as_complex(units.view(-1, half, 2))[:, None].expand(-1, channels, -1)
    none, one = units.new_zeros(2 * half, channels), units.new_ones(1, channels)
    pairs = recurrence.step(none, states), recurrence.step(one, recurrence.empty(1))
    return tuple(
        torch.cat((torch.view_as_real(x).flatten(2), y[..., None]), -1).permute(1, 2, 0).contiguous()
        for y, x in pairs
    )


def advance_by_product(state: Dense, u: Tensor) -> tuple[Tensor, Dense]:
    """The recurrence as one product with ā, which takes O(order²) per channel."""
    of_state, of_input, x = state
    found = torch.baddbmm(of_input * u.T[:, None].to(of_input.dtype), of_state, x)
    return found[:, -1].T.to(u.dtype), (of_state, of_input, found[:, :-1])


def with_kernel(seen: Tensor, u: Tensor, *parts: Tensor, time: int) -> tuple[Past, Tensor]:
    return (seen, cauchy(*parts, time=time)), u


def with_buffer(seen: Tensor, u: Tensor, *parts: Tensor, time: int) -> tuple[Buffer, Tensor]:
    kernel = cauchy(*parts, time=time).flip(1)
    length = seen.shape[1]
    buffer = kernel.new_zeros(seen.shape[2], seen.shape[0], time)
    buffer[..., :length] = seen.permute(2, 0, 1)
    return (buffer, kernel, length), u


def with_state(seen: Tensor, u: Tensor, *parts: Tensor, time: int) -> tuple[State, Tensor]:
    *pairs, step = parts
    step = step.to(torch.promote_types(step.dtype, torch.float32))
    lamb, p, b, c_tilde = complexes(*pairs)
    c = recurrent_c(lamb, p, b, c_tilde, step, time)
    recurrence = Recurrence.of(lamb, p, b, c, step, torch.zeros_like(step))
    x = recurrence.empty(len(seen))
    for sample in seen.unbind(1):
        _, x = recurrence.step(sample.to(step.dtype), x)
    return (tuple(recurrence), x), u


def with_matrices(seen: Tensor, u: Tensor, *parts: Tensor, time: int) -> tuple[Dense, Tensor]:
    (recurrence, x), u = with_state(seen, u, *parts, time=time)
    of_state, of_input = as_matrices(Recurrence(*recurrence))
    return (of_state, of_input, torch.view_as_real(x).flatten(2).permute(1, 2, 0).contiguous()), u


def one_more(batch: int, samples: int, channels: int, order: int, itemsize: int) -> Case:
    time = samples + 2

    def inputs(generator: torch.Generator) -> tuple[Tensor, ...]:
        seen = torch.randn(batch, samples, channels, generator=generator)
        return seen, torch.randn(batch, channels, generator=generator), *system(generator, channels, order)

    work = Cost(flops=40 * batch * channels * order // 2, bytes=(6 + 2 * batch) * channels * order * itemsize)
    return Case(
        name="one more sample",
        axes={"samples": samples, "channels": channels, "order": order, "batch": batch},
        inputs=inputs,
        variants=(
            Variant(
                name="whole convolution",
                role="naive",
                call=convolved,
                prepare=partial(with_kernel, time=time),
            ),
            Variant(
                name="one product in a buffer",
                role="strong",
                call=in_a_buffer,
                prepare=partial(with_buffer, time=time),
            ),
            Variant(name="recurrence", role="paper", call=advance, prepare=partial(with_state, time=time)),
            Variant(
                name="recurrence, one product",
                role="paper",
                call=advance_by_product,
                prepare=partial(with_matrices, time=time),
            ),
        ),
        tolerance=1e-3 if itemsize >= 4 else 0.05,
        cost={"decode": work},
    )


# Images


def around_the_layer(network: PixelReader, pixels: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
    """The network's scores with another implementation of its S4 layer, without the bypass."""
    x = network.into(pixels[..., None])
    u = network.norm(x)
    x = x + network.mix(F.gelu(layer(u) + network.layer.bypass * u))
    return network.readout(x[:, -1])


def pixel_by_pixel(network: PixelReader, pixels: Tensor) -> Tensor:
    lamb, p, b, c_tilde, step = network.layer.system()
    c = recurrent_c(lamb, p, b, c_tilde, step, network.layer.time)
    recurrence = Recurrence.of(lamb, p, b, c, step, torch.zeros_like(step))

    def layer(u: Tensor) -> Tensor:
        state, outputs = recurrence.empty(len(u)), []
        for sample in u.to(step.dtype).unbind(1):
            y, state = recurrence.step(sample, state)
            outputs.append(y)
        return torch.stack(outputs, 1).to(u.dtype)

    return around_the_layer(network, pixels, layer)


def by_doubling(network: PixelReader, pixels: Tensor) -> Tensor:
    *parts, step = network.layer.system()
    kernel = doubling(*(torch.view_as_real(part) for part in parts), step, time=network.layer.time)
    return around_the_layer(network, pixels, lambda u: convolve(u.mT.to(kernel.dtype), kernel).mT.to(u.dtype))


def image_case(batch: int, itemsize: int) -> Case:
    """Images of the experiment's size. The system is HiPPO's, as before training, with a random c̃."""
    system = hippo_dplr(ORDER)
    with torch.random.fork_rng(devices=()):
        fixed = dict(PixelReader(system).named_parameters())

    def weight(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
        if name.startswith("layer.") and name != "layer.c_tilde":
            return fixed[name].detach().clone()
        return torch.randn(shape, generator=generator) / max(shape[-1], 1) ** 0.5

    make, time = partial(PixelReader, system), SIDE**2
    dense = batch * (2 * time * CHANNELS + time * CHANNELS**2 + 10 * CHANNELS)
    return Case.of_module(
        make,
        name="images read pixel by pixel",
        axes={"images": batch, "pixels": time},
        inputs=lambda g: (torch.rand(batch, time, generator=g),),
        weight=weight,
        variants=(
            Variant.of_module(make, pixel_by_pixel, name="recurrence", role="naive"),
            Variant.of_module(make, by_doubling, name="kernel by doubling", role="strong"),
            Variant.of_module(make, name="kernel by Cauchy sums", role="paper"),
        ),
        tolerance=1e-3 if itemsize >= 4 else 0.05,
        cost={
            "forward": Cost(
                flops=2 * dense + 40 * CHANNELS * ORDER * (time // 2 + 1), bytes=batch * time * itemsize
            )
        },
    )


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    itemsize = bench.dtype.itemsize
    for time, channels, order in bench.pick(
        smoke=((12, 2, 4),),
        quick=((256, 16, 32), (1024, 16, 32)),
        full=((1024, 64, 64), (4096, 64, 64), (16384, 64, 64)),
    ):
        yield kernels(time, channels, order, itemsize)
    batch, channels, order = bench.pick(smoke=(2, 3, 4), quick=(4, 64, 32), full=(16, 256, 64))
    for samples in bench.pick(smoke=(9,), quick=(1024, 4096), full=(1024, 4096, 16384)):
        yield one_more(batch, samples, channels, order, itemsize)
    for batch in bench.pick(smoke=(2,), quick=(32,), full=(32, 256)):
        yield image_case(batch, itemsize)
