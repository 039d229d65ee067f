"""Times an encoder layer against a loop over heads and torch's own functions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import EncoderLayer

Tokens = Float[Tensor, "batch source model"]
Weights = dict[str, Tensor]


def head_by_head(w: Weights, x: Tokens, *, heads: int) -> Tokens:
    """Section 3.2.2 as written: each head separately, then concatenated."""
    projections = (w[f"attention.{name}.weight"].chunk(heads) for name in ("query", "key", "value"))
    results = []
    for query, key, value in zip(*projections, strict=True):
        scores = (x @ query.mT) @ (x @ key.mT).mT / len(query) ** 0.5
        results.append(scores.softmax(-1) @ (x @ value.mT))
    return after_attention(w, x, torch.cat(results, -1))


def packed(w: Weights, x: Tokens) -> tuple[Weights, Tokens]:
    """Concatenate the three projections into one matrix."""
    parts = [w[f"attention.{name}.weight"] for name in ("query", "key", "value")]
    return {**w, "packed": torch.cat(parts)}, x


def torchs_layer(w: Weights, x: Tokens, *, heads: int) -> Tokens:
    q, k, v = F.linear(x, w["packed"]).unflatten(-1, (3, heads, -1)).transpose(1, 3).unbind(2)
    return after_attention(w, x, F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def after_attention(w: Weights, x: Tokens, found: Tokens) -> Tokens:
    """Output projection, feed-forward network, residual sums and normalisations, with torch's functions."""
    shape = x.shape[-1:]
    norms = [(w[f"norms.{i}.weight"], w[f"norms.{i}.bias"]) for i in (0, 1)]
    x = F.layer_norm(x + F.linear(found, w["attention.output.weight"]), shape, *norms[0])
    hidden = F.linear(x, w["feed_forward.0.weight"], w["feed_forward.0.bias"]).relu()
    result = F.linear(hidden, w["feed_forward.2.weight"], w["feed_forward.2.bias"])
    return F.layer_norm(x + result, shape, *norms[1])


def cost(batch: int, tokens: int, model: int, hidden: int, itemsize: int) -> dict[str, Cost]:
    """FLOPs of matrix multiplications, and bytes of the input, the result and the weights."""
    weights = 4 * model**2 + 2 * model * hidden
    flops = 2 * batch * tokens * (weights + 2 * tokens * model)
    return Cost.products(flops, (2 * batch * tokens * model + weights) * itemsize)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, model, heads, hidden = bench.pick(
        smoke=(2, 8, 2, 16), quick=(2, 256, 4, 1024), full=(8, 512, 8, 2048)
    )
    make = partial(EncoderLayer, model, heads, hidden)
    for tokens in bench.pick(smoke=(4,), quick=(32, 128), full=(128, 512, 2048)):

        def inputs(generator: torch.Generator, tokens: int = tokens) -> tuple[Tensor]:
            return (torch.randn(batch, tokens, model, generator=generator),)

        yield Case.of_module(
            make,
            inputs=inputs,
            name="encoder layer",
            axes={"tokens": tokens},
            variants=(
                Variant(name="head by head", role="naive", call=partial(head_by_head, heads=heads)),
                Variant(
                    name="torch's functions",
                    role="strong",
                    call=partial(torchs_layer, heads=heads),
                    prepare=packed,
                ),
                Variant.of_module(make, name="EncoderLayer", role="paper"),
            ),
            cost=cost(batch, tokens, model, hidden, bench.dtype.itemsize),
            gradients=(0, 1),
        )
