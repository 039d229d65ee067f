"""Times hashed attention and full attention over the same pairs, and training at several depths."""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import ITSELF, Reformer, hashed_twice, lsh_attention, unit_length


def seen(buckets: Tensor, width: int) -> Tensor:
    """True for pairs of tokens that meet in at least one round, as (batch, heads, tokens, tokens)."""
    tokens = buckets.shape[-1]
    order = (buckets * tokens + torch.arange(tokens, device=buckets.device)).argsort(-1)
    places = (torch.arange(tokens, device=buckets.device) // width).expand_as(order)
    chunk = torch.empty_like(order).scatter_(-1, order, places)
    back = (chunk[..., :, None] - chunk[..., None, :]) % (tokens // width)
    return (back <= 1).any(2)


def bias(qk: Tensor, buckets: Tensor, width: int) -> Tensor:
    tokens = qk.shape[2]
    allowed = seen(buckets, width) & torch.ones(tokens, tokens, dtype=torch.bool, device=qk.device).tril()
    found = torch.zeros_like(allowed, dtype=qk.dtype).masked_fill(~allowed, -torch.inf)
    itself = torch.eye(tokens, dtype=torch.bool, device=qk.device)
    return found.masked_fill(itself, ITSELF)


def all_scores(qk: Tensor, v: Tensor, *rotations: Tensor, width: int) -> Tensor:
    """Compute every score, and mask the scores of pairs that do not meet."""
    mask = bias(qk, hashed_twice(qk, *rotations), width)
    return (qk @ unit_length(qk).mT + mask).softmax(-1) @ v


def with_mask(qk: Tensor, v: Tensor, *rotations: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    return qk, v, bias(qk, hashed_twice(qk, *rotations), width)


def fused(qk: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(qk, unit_length(qk), v, attn_mask=mask, scale=1.0)


def in_chunks(qk: Tensor, v: Tensor, *rotations: Tensor, width: int) -> Tensor:
    return lsh_attention(qk, v, hashed_twice(qk, *rotations), width=width)


def checkpointed(network: Reformer, ids: Tensor, rotations: list[Tensor]) -> Tensor:
    """The loss, with layers that store only their inputs and are recomputed in the backward pass."""
    x1 = x2 = network.tokens(ids[:, :-1]) + network.positions.weight[: ids.shape[1] - 1]
    for layer, r in zip(network.layers, rotations, strict=True):
        # The weights are arguments, because the layer may have other weights when it is called again.
        x1, x2 = checkpoint(_layer, layer, dict(layer.named_parameters()), r, x1, x2, use_reentrant=False)
    logits = network.output(network.norm(torch.cat((x1, x2), -1)))
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def _layer(
    layer: torch.nn.Module, weights: dict[str, Tensor], r: Tensor, x1: Tensor, x2: Tensor
) -> tuple[Tensor, Tensor]:
    y1 = x1 + functional_call(layer, weights, (x2, r))
    return y1, x2 + functional_call(layer, weights, (y1,))


def drawn_weight(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Random weights that preserve the scale of the activations. Projections into scores and ReLUs get
    smaller weights.

    With small scores, rounding shifts little attention weight between keys.
    """
    values = torch.randn(shape, generator=generator)
    if len(shape) == 1:
        return 0.1 * values + (0 if name.endswith("bias") else 1)
    small = 0.3 if name.endswith(("query_key.weight", "feed_forward.0.weight")) else 1.0
    return small * values / shape[1] ** 0.5


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    heads, dim, width, rounds = bench.pick(smoke=(2, 6, 4, 2), quick=(1, 64, 32, 2), full=(8, 64, 64, 4))
    itemsize = bench.dtype.itemsize
    for tokens in bench.pick(smoke=(16,), quick=(1024, 2048, 4096), full=(4096, 8192, 16_384)):
        pairs = tokens // width // 2  # half1 · half2, for two buckets per chunk
        first = 2 ** (pairs.bit_length() // 2)
        halves = first, pairs // first

        def inputs(
            g: torch.Generator, tokens: int = tokens, halves: tuple[int, int] = halves
        ) -> tuple[Tensor, ...]:
            qk, v = torch.randn(2, 1, heads, tokens, dim, generator=g)
            return qk, v, *(torch.randn(heads, dim, rounds, half, generator=g) for half in halves)

        hashing = 2 * heads * tokens * dim * rounds * sum(halves)
        scores = 4 * heads * tokens * rounds * 2 * width * dim
        moved = (3 * heads * tokens * dim + heads * dim * rounds * sum(halves)) * itemsize
        yield Case(
            name="hashed attention",
            axes={"tokens": tokens, "rounds": rounds},
            inputs=inputs,
            variants=(
                Variant(name="all scores, masked", role="naive", call=partial(all_scores, width=width)),
                Variant(
                    name="torch SDPA with a mask",
                    role="strong",
                    call=fused,
                    prepare=partial(with_mask, width=width),
                ),
                Variant(name="in chunks", role="paper", call=partial(in_chunks, width=width)),
            ),
            cost={"forward": Cost(flops=hashing + scores, bytes=moved)},
        )
    model, tokens, vocab = bench.pick(smoke=(16, 128, 11), quick=(64, 512, 64), full=(512, 4096, 256))
    hashing = {"buckets": 2 * tokens // width, "rounds": 1, "width": width}
    settings = {"context": tokens, "model": model, "heads": 2, "hidden": 4 * model, **hashing}
    for layers in bench.pick(smoke=(2,), quick=(2, 4, 8), full=(3, 6, 12)):
        make, kept = (partial(Reformer, vocab, layers=layers, stored=s, **settings) for s in (False, True))

        def drawn(g: torch.Generator, layers: int = layers) -> tuple[Tensor, list[Tensor]]:
            """Buckets are inputs, because rounding could change a vector's bucket and all later results."""
            shape = 1, 2, 1, tokens
            ids = torch.randint(vocab, (1, tokens + 1), generator=g)
            return ids, [torch.randint(2 * tokens // width, shape, generator=g) for _ in range(layers)]

        products = layers * tokens * (11 * model**2 + 4 * width * model)
        products += tokens * 2 * model * vocab
        weights = layers * 11 * model**2 + tokens * model + 3 * model * vocab
        yield Case.of_module(
            make,
            name="depth",
            axes={"layers": layers},
            inputs=drawn,
            weight=drawn_weight,
            variants=(
                Variant.of_module(kept, Reformer.loss, name="activations kept", role="naive"),
                Variant.of_module(make, checkpointed, name="torch checkpoint", role="strong"),
                Variant.of_module(make, Reformer.loss, name="reversible", role="paper"),
            ),
            cost=Cost.products(2 * products, weights * itemsize),
            # If rounding moves a ReLU's input across zero, a gradient changes by one token's contribution.
            # The tolerance for half precision is larger than that anyway.
            tolerance=0.02 if itemsize >= 4 else None,
        )
