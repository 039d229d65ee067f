"""Implements the decoder with its blocks, initial weights, KV cache and sampling."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..attention import merge_heads, scaled_dot_product_attention
from ..byte_bpe import GPT2_TOKENS
from ..layernorm import LayerNorm

Attention = Callable[..., Float[Tensor, "batch heads tokens dim"]]  # takes q, k, v, and `causal`


@dataclass
class Cache:
    """A KV cache: keys and values of all tokens so far, and free entries.

    kv      keys and values of each layer (entries beyond `length` are free)
    length  number of tokens so far
    """

    kv: Float[Tensor, "layers 2 batch heads room dim"]
    length: int = 0


class CausalAttention(nn.Module):
    """Causal multi-head self-attention. One projection computes queries, keys and values.

    attend  computes softmax(q kᵀ / √dim) v
    """

    def __init__(self, model: int, heads: int, *, attend: Attention = scaled_dot_product_attention) -> None:
        super().__init__()
        if model % heads:
            raise ValueError(f"a model of width {model} cannot be split over {heads} heads")
        self.heads = heads
        self.attend = attend
        self.qkv = nn.Linear(model, 3 * model)
        self.output = nn.Linear(model, model)

    def forward(
        self,
        x: Float[Tensor, "batch tokens model"],
        kv: Float[Tensor, "2 batch heads room dim"] | None = None,
        first: int = 0,
    ) -> Float[Tensor, "batch tokens model"]:
        """`kv` holds the keys and values of the `first` tokens before `x`, and receives those of `x`."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv
        if kv is not None:
            end = first + x.shape[1]
            kv[:, :, :, first:end] = qkv[1:]
            k, v = kv[:, :, :, :end]
        causal = x.shape[1] > 1  # a single new token attends to all
        return self.output(merge_heads(self.attend(q, k, v, causal=causal)))


class Block(nn.Module):
    """Section 2.3: layer normalisation moved to the input of each sub-layer."""

    def __init__(self, model: int, heads: int, *, attend: Attention = scaled_dot_product_attention) -> None:
        super().__init__()
        self.norms = nn.ModuleList(LayerNorm(model) for _ in range(2))
        self.attention = CausalAttention(model, heads, attend=attend)
        self.feed_forward = nn.Sequential(
            nn.Linear(model, 4 * model), nn.GELU(approximate="tanh"), nn.Linear(4 * model, model)
        )

    def forward(
        self,
        x: Float[Tensor, "batch tokens model"],
        kv: Float[Tensor, "2 batch heads room dim"] | None = None,
        first: int = 0,
    ) -> Float[Tensor, "batch tokens model"]:
        x = x + self.attention(self.norms[0](x), kv, first)
        return x + self.feed_forward(self.norms[1](x))


class GPT2(nn.Module):
    """The defaults are table 2's smallest model. `XL` has the settings of the largest, which is called GPT-2.

    vocab    size of the vocabulary (the output matrix is tied to the embedding)
    context  maximum number of tokens, each position with a learned embedding
    std      standard deviation of the initial weights, 0.02 in the released code (half of it for positions)
    scaled   whether the layers that write to the residual path have smaller initial weights
    attend   see `CausalAttention`
    """

    def __init__(
        self,
        vocab: int = GPT2_TOKENS,
        *,
        context: int = 1024,
        model: int = 768,
        heads: int = 12,
        layers: int = 12,
        std: float = 0.02,
        scaled: bool = True,
        attend: Attention = scaled_dot_product_attention,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding.from_pretrained(torch.empty(vocab, model), freeze=False)
        self.positions = nn.Embedding.from_pretrained(torch.empty(context, model), freeze=False)
        self.blocks = nn.ModuleList(Block(model, heads, attend=attend) for _ in range(layers))
        self.norm = LayerNorm(model)
        self.init_weights(std, scaled=scaled)

    def init_weights(self, std: float, *, scaled: bool) -> None:
        """Draws weights from a normal distribution, and sets biases to 0.

        Section 2.3: the weights of layers that write to the residual path are divided by √N, where N is the
        number of these layers, two in each block.
        """
        if self.tokens.weight.is_meta:
            return  # the meta device has nothing to fill, and importing its fill function takes a second
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Embedding):
                nn.init.normal_(layer.weight, std=std)
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.positions.weight.div_(2)
            if scaled:
                for block in self.blocks:
                    for layer in (block.attention.output, block.feed_forward[2]):
                        layer.weight.div_(math.sqrt(2 * len(self.blocks)))

    def forward(
        self, ids: Int[Tensor, "batch tokens"], cache: Cache | None = None
    ) -> Float[Tensor, "batch tokens vocab"]:
        """Logits of the next token after each of `ids`.

        cache  keys and values of the tokens before `ids`, to which those of `ids` are added

        Raises ValueError if the sequence, including the cache, is longer than the model's positions or the
        cache.
        """
        first = cache.length if cache else 0
        end = first + ids.shape[1]
        room = min(self.positions.num_embeddings, cache.kv.shape[-2] if cache else end)
        if end > room:
            raise ValueError(f"{end} tokens, but room for {room}")
        x = self.tokens(ids) + self.positions.weight[first:end]
        for layer, block in enumerate(self.blocks):
            x = block(x, cache.kv[layer] if cache else None, first)
        if cache:
            cache.length = end
        return F.linear(self.norm(x), self.tokens.weight)

    def loss(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, ""]:
        """Mean loss in nats per token after the first."""
        return F.cross_entropy(self(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())

    def empty_cache(self, batch: int, room: int | None = None) -> Cache:
        """A cache with `room` entries (default: the number of the model's positions)."""
        layers, heads = len(self.blocks), self.blocks[0].attention.heads
        context, model = self.positions.weight.shape
        shape = layers, 2, batch, heads, context if room is None else room, model // heads
        return Cache(self.positions.weight.new_empty(shape))

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
        """Returns `ids` and `count` sampled tokens. A KV cache avoids recomputing earlier tokens."""
        cache = self.empty_cache(len(ids), ids.shape[1] + count)
        logits = self(ids, cache)
        drawn = []
        for left in reversed(range(count)):
            likely = sampling_probabilities(logits[:, -1], temperature=temperature, top_k=top_k)
            drawn.append(torch.multinomial(likely.float().cpu(), 1, generator=generator).to(ids.device))
            if left:
                logits = self(drawn[-1], cache)
        return torch.cat((ids, *drawn), 1)


XL = {"model": 1600, "heads": 25, "layers": 48}


def sampling_probabilities(
    logits: Float[Tensor, "*batch vocab"], *, temperature: float = 1.0, top_k: int | None = None
) -> Float[Tensor, "*batch vocab"]:
    """Distribution of the next token: softmax(logits / temperature) over the `top_k` most probable tokens.

    At a temperature of 0 only the most probable token remains. The paper samples with top_k = 40.
    """
    if temperature == 0:
        return F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
    if top_k is not None:
        kept = logits.topk(min(top_k, logits.shape[-1]), -1)
        logits = torch.full_like(logits, -math.inf).scatter(-1, kept.indices, kept.values)
    return (logits / temperature).softmax(-1)
