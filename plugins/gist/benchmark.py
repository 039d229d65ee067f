"""Times a training step with the mask, and answers after a reprocessed, cached or compressed prompt."""

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..gpt2.benchmark import training_cost
from .model import Cache, GistGPT2, causal_mask


def loss(network: GistGPT2, ids: Tensor) -> Tensor:
    return F.cross_entropy(network(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def by_loops(network: GistGPT2, ids: Tensor) -> Tensor:
    """Builds the mask in loops over pairs of tokens, and attends in a loop over heads."""

    def visible(ids: Tensor, gist: int) -> Tensor:
        mask = torch.zeros(len(ids), 1, ids.shape[1], ids.shape[1], dtype=torch.bool)
        for row, text in enumerate(ids.tolist()):
            places = [place for place, token in enumerate(text) if token == gist]
            for query in range(len(text)):
                hidden = places[0] if query > places[-1] else 0
                mask[row, 0, query, hidden : query + 1] = True
        return mask.to(ids.device)

    def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
        heads = []
        for query, key, value in zip(q.unbind(1), k.unbind(1), v.unbind(1), strict=True):
            scores = query @ key.mT / query.shape[-1] ** 0.5
            heads.append(scores.masked_fill(~network.mask[:, 0], -torch.inf).softmax(-1) @ value)
        return torch.stack(heads, 1)

    network.visible = visible
    return attended_by(attend, network, ids)


def fused(network: GistGPT2, ids: Tensor) -> Tensor:
    def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=network.mask)

    return attended_by(attend, network, ids)


def attended_by(attend: Any, network: GistGPT2, ids: Tensor) -> Tensor:
    for block in network.blocks:
        block.attention.attend = attend
    return loss(network, ids)


@torch.no_grad()
def answer(network: GistGPT2, request: Tensor, count: int, kept: Cache) -> dict[str, Any]:
    """Generates `count` tokens greedily after a request, with a copy of the cache `kept`."""
    mine = type(kept)(**{**vars(kept), "kv": kept.kv.clone()})
    newest = request
    for _ in range(count):
        newest = network(newest, mine)[:, -1:].argmax(-1)
    return {"reached": True, "tokens": count, "bytes of the prompt's cache": cached_bytes(kept)}


def cached_bytes(kept: Cache) -> int:
    return kept.kv[..., : kept.length, :].numel() * kept.kv.element_size()


@torch.no_grad()
def read(network: GistGPT2, prompt: Tensor, room: int) -> Cache:
    """The cache of the whole prompt, with space for `room` more tokens."""
    kept = network.empty_cache(len(prompt), prompt.shape[1] + room)
    network(prompt, kept)
    return kept


def step_cost(
    batch: int, prompt: int, after: int, model: int, layers: int, vocab: int, itemsize: int
) -> dict[str, Cost]:
    """GPT-2's cost, without the query-key pairs that the mask hides."""
    tokens = prompt + after  # the last token is only predicted
    whole = training_cost(batch, tokens, model, layers, vocab + 1, itemsize, context=tokens)["forward"]
    hidden = prompt * (after - 1)
    return Cost.products(whole.flops - 4 * batch * layers * hidden * model, whole.bytes)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    sizes: dict[str, Any] = bench.pick(
        smoke={"model": 8, "heads": 2, "layers": 2},
        quick={"model": 256, "heads": 4, "layers": 2},
        full={"model": 768, "heads": 12, "layers": 12},
    )
    vocab = bench.pick(smoke=11, quick=512, full=512)
    context = bench.pick(smoke=64, quick=1024, full=1024)
    make = partial(GistGPT2, vocab, context=context, **sizes)

    def drawn(g: torch.Generator, rows: int, tokens: int) -> Tensor:
        return torch.randint(vocab, (rows, tokens), generator=g)

    for prompt, after in bench.pick(smoke=((5, 4),), quick=((64, 63),), full=((512, 511),)):
        yield Case.of_module(
            make,
            name="training step",
            axes={"tokens": prompt + 1 + after},
            inputs=lambda g, p=prompt, a=after: (
                torch.cat((drawn(g, 2, p), torch.full((2, 1), vocab), drawn(g, 2, a)), 1),
            ),
            variants=(
                Variant.of_module(make, by_loops, name="loops over pairs and heads", role="naive"),
                Variant.of_module(make, fused, name="torch SDPA", role="strong"),
                Variant.of_module(make, loss, name="GistGPT2", role="paper"),
            ),
            cost=step_cost(2, prompt, after, sizes["model"], sizes["layers"], vocab, bench.dtype.itemsize),
        )
    request, count = bench.pick(smoke=(3, 2), quick=(16, 16), full=(16, 64))

    @cache
    def built() -> GistGPT2:
        return make(visible=causal_mask).to(bench.device, bench.dtype)

    @cache
    def prompt_cache(length: int, *, gist: bool) -> Cache:
        prompt = torch.zeros(1, length, dtype=torch.long, device=bench.device)
        if gist:
            return built().compress(prompt, gists=1, room=request + count)
        return read(built(), prompt, request + count)

    def reprocessed(ids: Tensor, length: int) -> dict[str, Any]:
        return answer(built(), ids, count, read(built(), ids.new_zeros(1, length), request + count))

    def cached(ids: Tensor, length: int) -> dict[str, Any]:
        return answer(built(), ids, count, prompt_cache(length, gist=False))

    def compressed(ids: Tensor, length: int) -> dict[str, Any]:
        return answer(built(), ids, count, prompt_cache(length, gist=True))

    for length in bench.pick(smoke=(9,), quick=(104, 832), full=(832,)):
        yield Case(
            name="answer generation",
            axes={"prompt": length},
            inputs=lambda g, length=length: (drawn(g, 1, request), length),
            variants=(
                Variant(name="reprocessed prompt", role="naive", call=reprocessed),
                Variant(name="KV cache of the prompt", role="strong", call=cached),
                Variant(name="KV cache of the gist", role="paper", call=compressed),
            ),
            cost={"until": None},
        )
