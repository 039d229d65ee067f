"""Times the rotation as the paper's matrix, with half-split pairs as in Llama, and as complex numbers."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import FreqsCis, line_by_line, phases, rotate


def cost(shape: tuple[int, int, int, int], itemsize: int) -> dict[str, Cost]:
    """The cost for x of shape (batch, heads, tokens, dim). The cost of the angles is small in comparison."""
    values = math.prod(shape)
    # Two multiplications and one addition per value in each pass. The forward pass reads x and writes the
    # result. The backward pass reads and writes a gradient.
    return {
        "forward": Cost(flops=3 * values, bytes=2 * values * itemsize),
        "forward+backward": Cost(flops=6 * values, bytes=4 * values * itemsize),
    }


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, heads, dim = bench.pick(smoke=(1, 2, 8), quick=(4, 8, 64), full=(4, 16, 128))
    for tokens in bench.pick(smoke=(16,), quick=(64, 512), full=(512, 2048, 4096)):
        yield case(bench, (batch, heads, tokens, dim))


def case(bench: Bench, shape: tuple[int, int, int, int]) -> Case:
    """One benchmark case. All variants have precomputed angles.

    Results have shape (batch, heads, tokens, pairs, 2), which is a view of either order of coordinates.
    Variants with half-split pairs copy their gradient once in the backward pass.
    """
    # The oracle computes in float64, or in float32 where float64 is unavailable.
    exact = (torch.float32,) if bench.device.type == "mps" else (torch.float32, torch.float64)
    tables = {dtype: angles(shape[2], shape[3], bench.device, dtype) for dtype in {bench.dtype, *exact}}

    def of(call: Callable[..., Tensor], which: int) -> Callable[[Tensor], Tensor]:
        return lambda x: call(x, *tables[x.dtype][which])

    def neighbours(turned: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: turned(x).unflatten(-1, (-1, 2))

    def halves(turned: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: turned(x).unflatten(-1, (2, -1)).mT

    product = neighbours(of(rotate, 0))
    return Case(
        name="rotation",
        axes={"tokens": shape[2]},
        inputs=lambda generator: (torch.randn(shape, generator=generator),),
        variants=(
            Variant(name="matrix", role="naive", call=neighbours(of(line_by_line, 0))),
            Variant(name="Llama's halves", role="strong", call=halves(of(as_llama, 1)), prepare=to_halves),
            Variant(name="rolled halves", role="strong", call=halves(of(rolled, 1)), prepare=to_halves),
            Variant(name="complex", role="paper", call=product),
        ),
        oracle=product,
        cost=cost(shape, bench.dtype.itemsize),
    )


def angles(
    tokens: int, dim: int, device: torch.device, dtype: torch.dtype
) -> tuple[tuple[FreqsCis], tuple[Tensor, Tensor]]:
    """Arguments of `rotate`, `line_by_line` and the half-split variants, for x of `dtype`."""
    freqs_cis = phases(torch.arange(tokens, dtype=torch.float64), dim)
    whole = torch.complex128 if dtype == torch.float64 else torch.complex64
    parts = (torch.cat((part, part), -1).to(dtype).to(device) for part in (freqs_cis.real, freqs_cis.imag))
    return (freqs_cis.to(whole).to(device),), tuple(parts)


def to_halves(x: Tensor) -> tuple[Tensor]:
    """Reorder coordinates so that pair j is (j, j + dim / 2), as in most released models."""
    return (x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2),)


def as_llama(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Equation 34 on half-split pairs, as in transformers' Llama."""
    first, second = x.chunk(2, -1)
    return x * cosines + torch.cat((-second, first), -1) * sines


def rolled(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """`as_llama` in fewer passes, with the sign moved to the sines, which are smaller tensors."""
    first, second = sines.chunk(2, -1)
    return torch.addcmul(x * cosines, x.roll(x.shape[-1] // 2, -1), torch.cat((-first, second), -1))
