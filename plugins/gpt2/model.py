"""The decoder: its blocks, its beginning, its cache, and how text is drawn from it."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..attention import MultiHeadAttention, merge_heads, scaled_dot_product_attention, split_heads
from ..byte_bpe import GPT2_TOKENS
from ..layernorm import LayerNorm

Cache = tuple[Float[Tensor, "batch heads _ dim"], Float[Tensor, "batch heads _ dim"]]  # keys and values


class CachedAttention(MultiHeadAttention):
    """Causal self-attention that hands back its keys and values, and goes on from those of earlier tokens."""

    def __init__(self, model: int, heads: int) -> None:
        super().__init__(model, heads, bias=True)

    def forward(
        self, x: Float[Tensor, "batch tokens model"], cache: Cache | None = None
    ) -> tuple[Float[Tensor, "batch tokens model"], Cache]:
        q, k, v = (split_heads(project(x), self.heads) for project in (self.query, self.key, self.value))
        if cache is not None:
            k, v = torch.cat((cache[0], k), -2), torch.cat((cache[1], v), -2)
        found = scaled_dot_product_attention(q, k, v, causal=x.shape[1] > 1)  # the newest sees all
        return self.output(merge_heads(found)), (k, v)


class Block(nn.Module):
    """Section 2.3: layer normalisation moved to the input of each sub-layer."""

    def __init__(self, model: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(LayerNorm(model) for _ in range(2))
        self.attention = CachedAttention(model, heads)
        self.widen = nn.Linear(model, 4 * model)
        self.narrow = nn.Linear(4 * model, model)

    def feed_forward(self, x: Float[Tensor, "batch tokens model"]) -> Float[Tensor, "batch tokens model"]:
        return self.narrow(F.gelu(self.widen(x), approximate="tanh"))

    def forward(
        self, x: Float[Tensor, "batch tokens model"], cache: Cache | None = None
    ) -> tuple[Float[Tensor, "batch tokens model"], Cache]:
        found, cache = self.attention(self.norms[0](x), cache)
        x = x + found
        return x + self.feed_forward(self.norms[1](x)), cache


class GPT2(nn.Module):
    """The defaults are the smallest of table 2; `XL` are the settings of the largest, the one called GPT-2.

    words      size of the vocabulary; the embedding reads out too
    tokens     longest sequence: each place in it has a learned vector
    deviation  of the weights at the beginning, half of it for places: the released code's 0.02 and 0.01
    scaled     False: the layers that write to the residual path begin as all others do
    """

    def __init__(
        self,
        words: int = GPT2_TOKENS,
        *,
        tokens: int = 1024,
        model: int = 768,
        heads: int = 12,
        layers: int = 12,
        deviation: float = 0.02,
        scaled: bool = True,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding.from_pretrained(torch.empty(words, model), freeze=False)
        self.places = nn.Embedding.from_pretrained(torch.empty(tokens, model), freeze=False)
        self.blocks = nn.ModuleList(Block(model, heads) for _ in range(layers))
        self.norm = LayerNorm(model)
        self.begin(deviation, scaled=scaled)

    def begin(self, deviation: float, *, scaled: bool) -> None:
        """Normal weights, biases of zero.

        Section 2.3: the layers that write to the residual path by 1/√N, N being how many there are: two in
        each block.
        """
        if self.words.weight.is_meta:
            return  # shapes alone; to load what would fill them takes a second
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Embedding):
                nn.init.normal_(layer.weight, std=deviation)
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.places.weight.div_(2)
            if scaled:
                for block in self.blocks:
                    for layer in (block.attention.output, block.narrow):
                        layer.weight.div_(math.sqrt(2 * len(self.blocks)))

    def forward(
        self, ids: Int[Tensor, "batch tokens"], cache: list[Cache] | None = None
    ) -> tuple[Float[Tensor, "batch tokens words"], list[Cache]]:
        """Scores of the next token after each of `ids`, and the cache with which to go on after them.

        Raises ValueError if the sequence, with what is in the cache, is longer than the model has places for.
        """
        first = 0 if not cache else cache[0][0].shape[-2]
        end = first + ids.shape[1]
        if end > self.places.num_embeddings:
            raise ValueError(f"{end} tokens, but places for {self.places.num_embeddings}")
        x = self.words(ids) + self.places.weight[first:end]
        seen = []
        for block, before in zip(self.blocks, cache or [None] * len(self.blocks), strict=True):
            x, now = block(x, before)
            seen.append(now)
        return F.linear(self.norm(x), self.words.weight), seen

    def loss(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, ""]:
        """Mean nats a token, of all but the first."""
        return F.cross_entropy(self(ids[:, :-1])[0].flatten(0, 1), ids[:, 1:].flatten())

    @torch.no_grad()
    def generate(
        self,
        ids: Int[Tensor, "batch tokens"],
        count: int,
        generator: torch.Generator,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
    ) -> Int[Tensor, "batch longer"]:
        """`ids` and `count` tokens more, each after the first read with the cache of those before it."""
        scores, cache = self(ids)
        for left in reversed(range(count)):
            shares = sampling_shares(scores[:, -1], temperature=temperature, top_k=top_k)
            drawn = torch.multinomial(shares.cpu(), 1, generator=generator).to(ids.device)
            ids = torch.cat((ids, drawn), 1)
            if left:
                scores, cache = self(drawn, cache)
        return ids


XL = {"model": 1600, "heads": 25, "layers": 48}


def sampling_shares(
    scores: Float[Tensor, "*batch words"], *, temperature: float = 1.0, top_k: int | None = None
) -> Float[Tensor, "*batch words"]:
    """What a next token is drawn from: softmax(scores / temperature) over the `top_k` likeliest tokens.

    A temperature of 0 is its limit: the likeliest token alone. The paper's samples are of top_k = 40.
    """
    if temperature == 0:
        return F.one_hot(scores.argmax(-1), scores.shape[-1]).to(scores.dtype)
    if top_k is not None:
        kept = scores.topk(min(top_k, scores.shape[-1]), -1)
        scores = torch.full_like(scores, -math.inf).scatter(-1, kept.indices, kept.values)
    return (scores / temperature).softmax(-1)
