"""Times a system on a sequence: as a recurrence, as a Toeplitz matrix, and by Fourier transform."""

import math
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import bilinear, convolve, hippo_legs, kernel, recurrence


def by_kernel(a: Tensor, b: Tensor, c: Tensor, u: Tensor) -> Tensor:
    """The paper's method for training: compute the kernel by doubling and convolve by Fourier transform."""
    return convolve(u, kernel(a, b, c, u.shape[-1]))


def by_product(a: Tensor, b: Tensor, c: Tensor, u: Tensor) -> Tensor:
    """Convolve by multiplying with the kernel's Toeplitz matrix: O(time²), but fast for short sequences."""
    time = u.shape[-1]
    response = F.pad(kernel(a, b, c, time), (time - 1, 0))
    return u.flip(-1) @ response.unfold(0, time, 1).mT


def cost(batch: int, time: int, order: int, *, itemsize: int) -> dict[str, Cost]:
    """The cost of the kernel's matrix-vector products and of real Fourier transforms of 2 · time samples.

    This implementation computes several vectors at once by squaring the matrix, which is not counted. With
    order 64, the squarings take two thirds of the operations for 256 samples, and a third for 1,024.
    """
    transform = 2.5 * 2 * time * math.log2(2 * time)
    flops = 2 * time * order**2 + (2 * batch + 1) * transform + 6 * batch * time
    return Cost.products(flops, (2 * batch * time + order**2 + 2 * order) * itemsize)


def system_inputs(generator: torch.Generator, batch: int, time: int, order: int) -> tuple[Tensor, ...]:
    """The HiPPO matrix with a step size that spans all samples, a readout, and signals."""
    a, b = hippo_legs(order)
    a, b = bilinear(-a, b, torch.tensor(1 / time, dtype=torch.float64))
    c, u = torch.randn(order, generator=generator), torch.randn(batch, time, generator=generator)
    return a.float(), b.float(), c, u


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, order = bench.pick(smoke=(2, 4), quick=(16, 64), full=(64, 64))
    for time in bench.pick(smoke=(8,), quick=(256, 1024), full=(1024, 4096, 16384)):
        yield Case(
            name="state space",
            axes={"time": time},
            inputs=partial(system_inputs, batch=batch, time=time, order=order),
            variants=(
                Variant(name="recurrence", role="naive", call=recurrence),
                Variant(name="Toeplitz product", role="strong", call=by_product),
                Variant(name="kernel and FFT", role="paper", call=by_kernel),
            ),
            oracle=recurrence,
            cost=cost(batch, time, order, itemsize=bench.dtype.itemsize),
        )
