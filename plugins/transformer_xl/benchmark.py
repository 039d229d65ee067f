"""Times evaluating a segment with one pass per token, one pass over context and segment, or a memory."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..transformer import sines
from .model import TransformerXL, shifted

Weights = Mapping[str, Tensor]
State = dict[str, Any]  # "before": (batch, context), or "memory": inputs of each layer


def logits(weights: Weights, ids: Tensor, *, heads: int) -> Tensor:
    """A pass over `ids` without memory, built from torch's functions.

    The distance scores are passed as the mask of fused attention.
    """
    x = F.embedding(ids, weights["embedding.weight"])
    tokens, model = x.shape[1:]
    table = sines(tokens, model).to(x).flip(0)
    later = torch.ones(tokens, tokens, dtype=torch.bool, device=x.device).triu(1)

    def split(vectors: Tensor, name: str) -> Tensor:
        return F.linear(vectors, weights[f"{name}.weight"]).unflatten(-1, (heads, -1)).transpose(-3, -2)

    for layer in range(1 + max(int(name.split(".")[1]) for name in weights if name.startswith("layers."))):
        name = f"layers.{layer}"
        q, k, v = (split(x, f"{name}.attention.{part}") for part in ("query", "key", "value"))
        r = split(table, f"{name}.attention.position")
        by_distance = shifted((q + weights["v"][:, None]) @ r.mT) * q.shape[-1] ** -0.5
        bias = by_distance.masked_fill(later, -torch.inf)
        attended = F.scaled_dot_product_attention(q + weights["u"][:, None], k, v, attn_mask=bias)
        added = F.linear(attended.transpose(1, 2).flatten(2), weights[f"{name}.attention.output.weight"])
        x = norm(weights, x + added, f"{name}.norms.0")
        hidden = linear(weights, x, f"{name}.feed_forward.0").relu()
        x = norm(weights, x + linear(weights, hidden, f"{name}.feed_forward.3"), f"{name}.norms.1")
    return F.linear(x, weights["embedding.weight"], weights["bias"])


def linear(weights: Weights, x: Tensor, name: str) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def norm(weights: Weights, x: Tensor, name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])


def slide(weights: Weights, before: Tensor, ids: Tensor, *, heads: int) -> Tensor:
    """One pass over the context for each token, of which only the last position is used."""
    whole, found = torch.cat((before, ids), 1), []
    for token in range(ids.shape[1]):
        read = whole[:, : before.shape[1] + token + 1]
        found.append(logits(weights, read, heads=heads)[:, -1])
    return torch.stack(found, 1)


def read_once(weights: Weights, before: Tensor, ids: Tensor, *, heads: int) -> Tensor:
    """One pass over the context and the segment."""
    return logits(weights, torch.cat((before, ids), 1), heads=heads)[:, before.shape[1] :]


def remember(make: Any, weights: Weights, before: Tensor, ids: Tensor) -> tuple[Any, ...]:
    """Compute the memory of the context, outside the timed call."""
    with torch.no_grad():
        _, memory = torch.func.functional_call(make(), dict(weights), (before,), {"keep": before.shape[1]})
    return weights, memory, ids


def from_memory(network: TransformerXL, memory: list[Tensor], ids: Tensor) -> Tensor:
    return network(ids, memory)[0]


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, model, heads, layers, vocab = bench.pick(
        smoke=(2, 8, 2, 2, 11), quick=(1, 256, 4, 2, 204), full=(1, 512, 8, 12, 204)
    )

    def make() -> TransformerXL:
        return TransformerXL(vocab, model=model, heads=heads, hidden=4 * model, layers=layers, dropout=0.0)

    for tokens, context in bench.pick(
        smoke=((5, 7),), quick=((16, 64), (64, 64)), full=((128, 512), (512, 512))
    ):
        keys = tokens + context
        products = layers * (
            model**2 * (2 * batch * tokens + 2 * batch * keys + keys + 8 * batch * tokens)
            + 3 * batch * tokens * keys * model
        )
        products += batch * tokens * vocab * model
        weights = layers * (13 * model**2 + 9 * model) + vocab * (model + 1) + 2 * model
        moved = (weights + layers * batch * context * model) * bench.dtype.itemsize
        yield Case.of_module(
            make,
            name="next segment",
            axes={"tokens": tokens, "context": context},
            inputs=lambda g, tokens=tokens, context=context: tuple(
                torch.randint(vocab, (batch, length), generator=g) for length in (context, tokens)
            ),
            variants=(
                Variant(name="sliding window", role="naive", call=partial(slide, heads=heads)),
                Variant(
                    name="one pass over context and segment",
                    role="strong",
                    call=partial(read_once, heads=heads),
                ),
                Variant.of_module(
                    make, from_memory, name="memory", role="paper", prepare=partial(remember, make)
                ),
            ),
            cost={"forward": Cost(flops=2 * products, bytes=moved)},
        )
