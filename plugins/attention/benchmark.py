"""Times equation 1 against a loop over queries and against torch's fused attention."""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import scaled_dot_product_attention

Vectors = Float[Tensor, "*batch tokens dim"]


def one_query_at_a_time(q: Vectors, k: Vectors, v: Vectors, *, causal: bool) -> Vectors:
    """Attention for one query after another, without batching, as in a recurrent decoder."""
    results = []
    for newest, query in enumerate(q.unbind(-2)):
        seen = newest + 1 if causal else k.shape[-2]
        scores = k[..., :seen, :] @ query[..., None] * q.shape[-1] ** -0.5
        results.append((scores.softmax(-2) * v[..., :seen, :]).sum(-2))
    return torch.stack(results, -2)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, heads, dim = bench.pick(smoke=(1, 2, 8), quick=(1, 4, 64), full=(4, 16, 64))
    for causal in (False, True):
        for tokens in bench.pick(smoke=(16,), quick=(64, 256), full=(512, 1024, 2048, 4096)):
            yield case(bench, (batch, heads, tokens, dim), causal=causal, spread=1.0)
    # With scores this large, many weights are subnormal numbers, on which CPUs are slow.
    tokens = bench.pick(smoke=8, quick=256, full=1024)
    yield case(bench, (batch, heads, tokens, dim), causal=False, spread=30.0)


def case(bench: Bench, shape: tuple[int, int, int, int], *, causal: bool, spread: float) -> Case:
    """`spread` is the standard deviation of the scores."""

    def inputs(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (torch.randn(shape, generator=generator) for _ in range(3))
        return spread * q, k, v

    sdpa = partial(F.scaled_dot_product_attention, is_causal=causal)
    return Case(
        name="attention",
        axes={"tokens": shape[2], "causal": causal, "spread of scores": spread},
        inputs=inputs,
        variants=(
            Variant(
                name="one query at a time", role="naive", call=partial(one_query_at_a_time, causal=causal)
            ),
            Variant(name="torch SDPA", role="strong", call=sdpa),
            Variant(
                name="equation 1", role="paper", call=partial(scaled_dot_product_attention, causal=causal)
            ),
        ),
        oracle=sdpa,
        cost=Cost.attention(*shape, causal=causal, itemsize=bench.dtype.itemsize),
    )
