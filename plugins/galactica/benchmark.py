"""Times the generation of the work, with one forward pass for the question and one per token of the work."""

from collections.abc import Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import Galactica

Weights = Mapping[str, Tensor]
Cache = list[tuple[Tensor, Tensor]]


def norm(weights: Weights, x: Tensor, name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])


def read(weights: Weights, ids: Tensor, heads: int, cache: Cache | None = None) -> Tensor:
    """Returns the logits after the last token. Appends each layer's keys and values to `cache`, if given."""
    layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    first = cache[0][0].shape[2] if cache else 0
    x = F.embedding(ids, weights["tokens.weight"]) + weights["positions.weight"][first : first + ids.shape[1]]
    for layer in range(layers):
        name = f"blocks.{layer}"
        qkv = F.linear(norm(weights, x, f"{name}.norms.0"), weights[f"{name}.attention.qkv.weight"])
        q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        if cache is not None:
            if first:
                k, v = torch.cat((cache[layer][0], k), 2), torch.cat((cache[layer][1], v), 2)
                cache[layer] = k, v
            else:
                cache.append((k, v))
        found = F.scaled_dot_product_attention(q, k, v, is_causal=not first)
        x = x + F.linear(found.transpose(1, 2).flatten(2), weights[f"{name}.attention.output.weight"])
        hidden = F.gelu(
            F.linear(norm(weights, x, f"{name}.norms.1"), weights[f"{name}.feed_forward.0.weight"])
        )
        x = x + F.linear(hidden, weights[f"{name}.feed_forward.2.weight"])
    return F.linear(norm(weights, x[:, -1], "norm"), weights["tokens.weight"])


def reading_all_again(weights: Weights, question: Tensor, work: Tensor, *, heads: int) -> Tensor:
    written = [question]
    logits = [read(weights, question, heads)]
    for token in work.split(1, 1):
        written.append(token)
        logits.append(read(weights, torch.cat(written, 1), heads))
    return torch.stack(logits, 1)


def with_cache(weights: Weights, question: Tensor, work: Tensor, *, heads: int) -> Tensor:
    cache: Cache = []
    logits = [read(weights, question, heads, cache)]
    logits += [read(weights, token, heads, cache) for token in work.split(1, 1)]
    return torch.stack(logits, 1)


def write(network: Galactica, question: Tensor, work: Tensor) -> Tensor:
    """Logits along a given work text. Generated texts could differ between variants because of rounding."""
    cache = network.empty_cache(len(question), question.shape[1] + work.shape[1])
    logits = [network(question, cache)[:, -1]]
    logits += [network(token, cache)[:, -1] for token in work.split(1, 1)]
    return torch.stack(logits, 1)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    model, heads, layers, vocab, question = bench.pick(
        smoke=(8, 2, 2, 11, 4), quick=(256, 4, 2, 512, 64), full=(768, 12, 12, 50_000, 256)
    )
    for work in bench.pick(smoke=(3,), quick=(8, 32), full=(64, 512)):
        make = partial(Galactica, vocab, context=question + work, model=model, heads=heads, layers=layers)
        tokens = question + work
        pairs = tokens * (tokens + 1) // 2
        matrices = 12 * layers * model**2
        flops = 2 * (tokens * matrices + (work + 1) * vocab * model) + 4 * layers * pairs * model
        # Every matrix is read once for the question and once for each token of the work.
        moved = (work + 1) * (matrices + vocab * model) + 2 * layers * model * (pairs - question**2 // 2)
        yield Case.of_module(
            make,
            name="generation of the work",
            axes={"work tokens": work},
            inputs=lambda g, work=work: (
                torch.randint(vocab, (1, question), generator=g),
                torch.randint(vocab, (1, work), generator=g),
            ),
            variants=(
                Variant(name="no cache", role="naive", call=partial(reading_all_again, heads=heads)),
                Variant(
                    name="torch SDPA with KV cache", role="strong", call=partial(with_cache, heads=heads)
                ),
                Variant.of_module(make, write, name="Galactica with KV cache", role="paper"),
            ),
            cost={"forward": Cost(flops, moved * bench.dtype.itemsize)},
        )
