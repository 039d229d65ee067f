"""Times cosine attention as written, with PyTorch functions, and with the scale folded into the queries."""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import line_by_line, qk_norm_attention


def composed(q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, causal: bool) -> Tensor:
    q, k = F.normalize(q, dim=-1) * g, F.normalize(k, dim=-1)
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=1.0)


def plain(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
    """Dot-product attention with scale g instead of 1 / √d."""
    return F.scaled_dot_product_attention(q * g, k, v, is_causal=True, scale=1.0)


def of_length_1(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, ...]:
    return F.normalize(q, dim=-1), F.normalize(k, dim=-1), v, g


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, heads, dim = bench.pick(smoke=(1, 2, 4), quick=(2, 4, 64), full=(8, 16, 64))
    written, ours = partial(line_by_line, causal=True), partial(qk_norm_attention, causal=True)
    for tokens in bench.pick(smoke=(5,), quick=(128, 512), full=(512, 2048, 8192)):
        axes = {"tokens": tokens, "batch": batch, "heads": heads}
        inputs = partial(vectors, shape=(batch, heads, tokens, dim))
        cost = Cost.attention(batch, heads, tokens, dim, itemsize=bench.dtype.itemsize, causal=True)
        yield Case(
            name="attention by cosines",
            axes=axes,
            inputs=inputs,
            variants=(
                Variant(name="line by line", role="naive", call=written),
                Variant(
                    name="torch normalize and attention", role="strong", call=partial(composed, causal=True)
                ),
                Variant(name="scale folded in", role="paper", call=ours),
            ),
            cost=cost,
        )
        # For unit vectors, dot products are cosines, so the difference in time is the cost of normalisation.
        yield Case(
            name="plain attention, on vectors of length 1",
            axes=axes,
            inputs=inputs,
            variants=(
                Variant(name="line by line", role="naive", call=written, prepare=of_length_1),
                Variant(name="plain attention", role="strong", call=plain, prepare=of_length_1),
                Variant(name="scale folded in", role="paper", call=ours, prepare=of_length_1),
            ),
            cost={"forward": cost["forward"]},
        )


def vectors(generator: torch.Generator, *, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Queries and keys of very different lengths. Only their directions affect the result."""
    lengths = torch.logspace(-1, 1, shape[2])[:, None]
    q, k, v = (torch.randn(shape, generator=generator) for _ in range(3))
    return q * lengths, k * lengths.flip(0), v, torch.full((1,), 8.0)
