"""Times a training step and next-token generation, for our model and one written with torch's functions."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..byte_bpe import GPT2_TOKENS
from .model import GPT2, Cache

Weights = Mapping[str, Tensor]
State = dict[str, Any]  # "ids": (batch, tokens), or "kv": a cache with free entries, and "length"
KINDS = ("weight", "bias")


def head_by_head(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """Attention in a loop over heads. Masked scores are set to -10^10, as in the released code."""
    heads = []
    for query, key, value in zip(q.unbind(1), k.unbind(1), v.unbind(1), strict=True):
        scores = query @ key.mT / query.shape[-1] ** 0.5
        if causal:
            allowed = torch.ones_like(scores).tril()
            scores = scores * allowed - 1e10 * (1 - allowed)
        weights = (scores - scores.amax(-1, keepdim=True)).exp()
        heads.append(weights / weights.sum(-1, keepdim=True) @ value)
    return torch.stack(heads, 1)


def fused(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def logits(
    weights: Weights, ids: Tensor, *, heads: int, attend: Callable[..., Tensor], state: State | None = None
) -> Tensor:
    """Logits after each of `ids` (batch, tokens). Continues from `state` and updates it."""
    first = state["length"] if state else 0
    x = F.embedding(ids, weights["tokens.weight"]) + weights["positions.weight"][first : first + ids.shape[1]]
    for layer in range(layers_of(weights)):
        name = f"blocks.{layer}"
        qkv = linear(weights, norm(weights, x, f"{name}.norms.0"), f"{name}.attention.qkv")
        q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        if state:
            kv, end = state["kv"][layer], first + x.shape[1]
            kv[0, :, :, first:end], kv[1, :, :, first:end] = k, v
            k, v = kv[:, :, :, :end]
        attended = attend(q, k, v, causal=x.shape[1] > 1)
        x = x + linear(weights, attended.transpose(1, 2).flatten(2), f"{name}.attention.output")
        hidden = linear(weights, norm(weights, x, f"{name}.norms.1"), f"{name}.feed_forward.0")
        x = x + linear(weights, F.gelu(hidden, approximate="tanh"), f"{name}.feed_forward.2")
    return F.linear(norm(weights, x, "norm"), weights["tokens.weight"])


def loss(weights: Weights, ids: Tensor, *, heads: int, attend: Callable[..., Tensor]) -> Tensor:
    found = logits(weights, ids[:, :-1], heads=heads, attend=attend)
    return F.cross_entropy(found.flatten(0, 1), ids[:, 1:].flatten())


@cache
def compiler() -> Callable[..., Tensor]:
    return torch.compile(loss, dynamic=False)


def compiled(weights: Weights, ids: Tensor, *, heads: int) -> Tensor:
    return compiler()(weights, ids, heads=heads, attend=fused)


def layers_of(weights: Weights) -> int:
    return 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))


def linear(weights: Weights, x: Tensor, name: str) -> Tensor:
    return F.linear(x, *(weights[f"{name}.{kind}"] for kind in KINDS))


def norm(weights: Weights, x: Tensor, name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], *(weights[f"{name}.{kind}"] for kind in KINDS))


def read_all_anew(weights: Weights, state: State, newest: Tensor, *, heads: int) -> tuple[Tensor, State]:
    """Logits after the newest token, recomputed from all tokens."""
    ids = torch.cat([state["ids"], newest], 1)
    return logits(weights, ids, heads=heads, attend=fused)[:, -1], {"ids": ids}


def with_cache(weights: Weights, state: State, newest: Tensor, *, heads: int) -> tuple[Any, ...]:
    """Builds a cache of the tokens so far, with entries for all of the model's positions."""
    context, model = weights["positions.weight"].shape
    shape = layers_of(weights), 2, len(state["ids"]), heads, context, model // heads
    begun: State = {"kv": weights["positions.weight"].new_zeros(shape), "length": 0}
    logits(weights, state["ids"], heads=heads, attend=fused, state=begun)
    return weights, {**begun, "length": state["ids"].shape[1]}, newest


def write_into_cache(weights: Weights, state: State, newest: Tensor, *, heads: int) -> tuple[Tensor, State]:
    found = logits(weights, newest, heads=heads, attend=fused, state=state)
    return found[:, -1], {**state, "length": state["length"] + 1}


def go_on(network: GPT2, state: State, newest: Tensor) -> tuple[Tensor, State]:
    """Logits after the newest token, from this folder's model and cache."""
    cache = Cache(state["kv"], state["length"])
    found = network(newest, cache)
    return found[:, -1], {"kv": cache.kv, "length": cache.length}


def training_cost(
    batch: int, tokens: int, model: int, layers: int, vocab: int, itemsize: int, *, context: int
) -> dict[str, Cost]:
    """FLOPs of matrix multiplications (attention: unmasked pairs only), and bytes of the weights."""
    weights = 12 * layers * model**2 + vocab * model
    pairs = tokens * (tokens + 1) // 2
    flops = 2 * batch * (tokens * weights + 2 * layers * pairs * model)
    return Cost.products(flops, (weights + layers * 13 * model + (context + 2) * model) * itemsize)


def decoding_cost(before: int, model: int, layers: int, vocab: int, itemsize: int) -> Cost:
    """FLOPs of one token, and bytes of the weights and of the keys and values before it."""
    weights = layers * (12 * model**2 + 13 * model) + (vocab + 2) * model
    flops = 2 * (12 * layers * model**2 + vocab * model + 2 * layers * (before + 1) * model)
    return Cost(flops=flops, bytes=(weights + 2 * layers * (before + 1) * model) * itemsize)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, model, heads, layers, vocab, context = bench.pick(
        smoke=(2, 8, 2, 2, 11, 16), quick=(2, 256, 4, 2, 512, 256), full=(4, 768, 12, 12, GPT2_TOKENS, 1024)
    )
    make = partial(GPT2, vocab, context=context, model=model, heads=heads, layers=layers)

    def drawn(generator: torch.Generator, rows: int, tokens: int) -> Tensor:
        return torch.randint(vocab, (rows, tokens), generator=generator)

    for tokens in bench.pick(smoke=(5,), quick=(32, 128), full=(1024, 256)):
        yield Case.of_module(
            make,
            name="training step",
            axes={"tokens": tokens},
            inputs=lambda generator, tokens=tokens: (drawn(generator, batch, tokens + 1),),
            variants=(
                Variant(
                    name="head by head", role="naive", call=partial(loss, heads=heads, attend=head_by_head)
                ),
                Variant(name="torch SDPA", role="strong", call=partial(loss, heads=heads, attend=fused)),
                # On a CPU, compiling would take longer than the measurement.
                Variant(
                    name="torch SDPA, compiled",
                    role="compiled",
                    call=partial(compiled, heads=heads),
                    needs=bench.needs("cuda"),
                ),
                Variant.of_module(make, GPT2.loss, name="GPT2", role="paper"),
            ),
            cost=training_cost(batch, tokens, model, layers, vocab, bench.dtype.itemsize, context=context),
        )
    for tokens in bench.pick(smoke=(5,), quick=(32, 128), full=(256, 1000)):
        prepare = partial(with_cache, heads=heads)
        yield Case.of_module(
            make,
            name="next token",
            axes={"tokens before": tokens},
            # The newest token is given, because rounding could make variants generate different tokens.
            inputs=lambda generator, tokens=tokens: (
                {"ids": drawn(generator, 1, tokens)},
                drawn(generator, 1, 1),
            ),
            variants=(
                Variant(name="no cache", role="naive", call=partial(read_all_anew, heads=heads)),
                Variant(
                    name="torch SDPA with KV cache",
                    role="strong",
                    call=partial(write_into_cache, heads=heads),
                    prepare=prepare,
                ),
                Variant.of_module(make, go_on, name="GPT2 with KV cache", role="paper", prepare=prepare),
            ),
            cost={"decode": decoding_cost(tokens, model, layers, vocab, bench.dtype.itemsize)},
        )
