"""Times attention, and a feed-forward layer's second matrix multiplication for several shares of zeros."""

from collections.abc import Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import NormalisedAttention, without_zeros

Weights = Mapping[str, Tensor]


def row_by_row(hidden: Tensor, rows: Tensor) -> Tensor:
    return (hidden[:, None] * rows).sum(0)


def product(hidden: Tensor, columns: Tensor) -> Tensor:
    """The matrix multiplication with weights stored as in `nn.Linear`, one row per output."""
    return F.linear(hidden, columns)


def untransposed(hidden: Tensor, rows: Tensor) -> Tensor:
    """The matrix multiplication with one row per hidden activation, which reads memory in another order."""
    return (hidden[None] @ rows)[0]


def transposed(hidden: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    return hidden, rows.T.contiguous()


def with_zeros(generator: torch.Generator, count: int, zeros: float) -> Tensor:
    hidden = torch.randn(count, generator=generator).square()
    hidden[torch.randperm(count, generator=generator)[: round(count * zeros)]] = 0
    return hidden


def normalised(weights: Weights, x: Tensor, heads: int, *, fused: bool) -> Tensor:
    """Normalised attention, computed from the formula or with torch's fused functions.

    The first half of each head is rotated by multiplications with cosines and sines.
    """
    qkv = F.linear(x, weights["qkv.weight"], weights["qkv.bias"])
    q, k, v = qkv.unflatten(-1, (heads, 3, -1)).permute(3, 0, 2, 1, 4)
    dim = q.shape[-1]

    def prepared(part: Tensor, name: str) -> Tensor:
        gain, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        if fused:
            part = F.layer_norm(part, (dim,), gain, bias)
        else:
            mean = part.mean(-1, keepdim=True)
            part = (part - mean) / (part.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() * gain + bias
        return turned(part)

    q, k = prepared(q, "query_norm"), prepared(k, "key_norm")
    if fused:
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    else:
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        attended = (q @ k.mT / dim**0.5).masked_fill(later, -torch.inf).softmax(-1) @ v
    joined = attended.transpose(1, 2).flatten(2)
    return F.linear(joined, weights["output.weight"], weights["output.bias"])


def turned(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    single = torch.promote_types(x.dtype, torch.float32)
    place = torch.arange(x.shape[-2], device=x.device, dtype=single)
    angles = place[:, None] * 25000.0 ** (torch.arange(0, half, 2, device=x.device, dtype=single) / -half)
    cosines, sines = angles.cos(), angles.sin()
    even, odd = x[..., :half:2].to(single), x[..., 1:half:2].to(single)
    pairs = torch.stack((even * cosines - odd * sines, even * sines + odd * cosines), -1).flatten(-2)
    return torch.cat((pairs.to(x.dtype), x[..., half:]), -1)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    model, hidden = bench.pick(smoke=(6, 24), quick=(1024, 4096), full=(4096, 16_384))
    for zeros in bench.pick(smoke=(0.5,), quick=(0.6, 0.75, 0.95), full=(0.5, 0.75, 0.9, 0.95, 0.99)):
        used = hidden - round(hidden * zeros)
        yield Case(
            name="the second product",
            axes={"share of zeros": zeros},
            inputs=lambda g, zeros=zeros: (
                with_zeros(g, hidden, zeros),
                torch.randn(hidden, model, generator=g) / hidden**0.5,
            ),
            variants=(
                Variant(name="row by row", role="naive", call=row_by_row),
                Variant(name="torch linear", role="strong", call=product, prepare=transposed),
                Variant(name="torch product with all rows", role="strong", call=untransposed),
                Variant(name="rows that count", role="paper", call=without_zeros),
            ),
            cost={"forward": Cost(2 * used * model, (hidden + used * model + model) * bench.dtype.itemsize)},
        )
    width, heads, tokens = bench.pick(smoke=(16, 2, 5), quick=(256, 4, 256), full=(1024, 16, 1024))
    make = partial(NormalisedAttention, width, heads)
    products = 2 * tokens * 4 * width**2 + 2 * tokens * (tokens + 1) * width
    dim = width // heads
    yield Case.of_module(
        make,
        name="normalised attention",
        axes={"tokens": tokens},
        inputs=lambda g: (torch.randn(2, tokens, width, generator=g),),
        variants=(
            Variant(name="by the formula", role="naive", call=partial(normalised, heads=heads, fused=False)),
            Variant(
                name="torch layer norm and SDPA",
                role="strong",
                call=partial(normalised, heads=heads, fused=True),
            ),
            Variant.of_module(make, name="NormalisedAttention", role="paper"),
        ),
        cost=Cost.products(
            2 * products, (4 * width**2 + 4 * width + 4 * dim + 4 * tokens * width) * bench.dtype.itemsize
        ),
    )
