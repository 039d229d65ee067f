"""Times queries that share a few-shot prompt, which is processed for each query or once."""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..gpt2 import Cache
from ..gpt2.benchmark import Weights, fused, logits
from .model import GPT3


def for_each_query(weights: Weights, prompt: Tensor, queries: Tensor, *, heads: int) -> Tensor:
    """Processes the prompt before every query, in one batch."""
    whole = torch.cat((prompt.expand(len(queries), -1), queries), 1)
    return logits(weights, whole, heads=heads, attend=fused)[:, -1]


def read_once(weights: Weights, prompt: Tensor, queries: Tensor, *, heads: int) -> Tensor:
    """Processes the prompt once, and copies its cache for every query."""
    context, model = weights["positions.weight"].shape
    layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    kv = weights["positions.weight"].new_zeros(layers, 2, 1, heads, context, model // heads)
    logits(weights, prompt, heads=heads, attend=fused, state={"kv": kv, "length": 0})
    length, keys = prompt.shape[1], prompt.shape[1] + queries.shape[1]
    copied = kv.repeat(1, 1, len(queries), 1, 1, 1)
    # Queries of several tokens after a prompt: the mask is aligned with the last key.
    mask = torch.ones(queries.shape[1], keys, dtype=torch.bool, device=prompt.device).tril(length)

    def aligned(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    state = {"kv": copied, "length": length}
    return logits(weights, queries, heads=heads, attend=aligned, state=state)[:, -1]


def with_cache(network: GPT3, prompt: Tensor, queries: Tensor) -> Tensor:
    """Processes the prompt once, with this folder's model and GPT-2's cache."""
    cache = network.empty_cache(1, prompt.shape[1] + queries.shape[1])
    network(prompt, cache)
    shared = Cache(cache.kv.repeat(1, 1, len(queries), 1, 1, 1), cache.length)
    return network(queries, shared)[:, -1]


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    model, heads, layers, vocab, queries, length = bench.pick(
        smoke=(8, 2, 2, 11, 3, 2), quick=(256, 4, 2, 512, 16, 8), full=(768, 12, 12, 50_257, 32, 32)
    )
    for prompt in bench.pick(smoke=(6,), quick=(32, 128), full=(256, 1024)):
        tokens = prompt + length

        def make(tokens: int = tokens) -> GPT3:
            # The window covers the whole text, because the other variants have dense layers only.
            sizes = {"model": model, "heads": heads, "layers": layers}
            return GPT3(vocab, context=tokens, **sizes, window=tokens)

        pairs = prompt * (prompt + 1) // 2 + queries * (length * prompt + length * (length + 1) // 2)
        read = prompt + queries * length
        # Only the logits of each query's last token are needed.
        products = layers * (12 * model**2 * read + 2 * pairs * model) + queries * vocab * model
        weights = layers * (12 * model**2 + 13 * model) + (vocab + tokens + 2) * model
        yield Case.of_module(
            make,
            name="queries with one prompt",
            axes={"prompt": prompt, "queries": queries},
            inputs=lambda g, prompt=prompt: (
                torch.randint(vocab, (1, prompt), generator=g),
                torch.randint(vocab, (queries, length), generator=g),
            ),
            variants=(
                Variant(name="prompt before each", role="naive", call=partial(for_each_query, heads=heads)),
                Variant(name="torch SDPA and cache", role="strong", call=partial(read_once, heads=heads)),
                Variant.of_module(make, with_cache, name="GPT-2's cache", role="paper"),
            ),
            cost={"forward": Cost(flops=2 * products, bytes=weights * bench.dtype.itemsize)},
        )
