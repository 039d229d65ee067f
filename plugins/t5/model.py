"""Implements the encoder and the decoder, relative positions, and a KV cache for generation.

Dimensions: batch, source and target (tokens), queries, keys, heads, dim (of a head), model (hidden size),
vocab, room (capacity of a cache in tokens).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..attention import merge_heads, split_heads
from ..rmsnorm import RMSNorm


def buckets(
    distance: Int[Tensor, "*any"], *, both_sides: bool, count: int = 32, furthest: int = 128
) -> Int[Tensor, "*any"]:
    """Section 2.1: the bucket of a key that is `distance` tokens after its query.

    Half of the buckets have one distance each. The other buckets grow logarithmically up to `furthest`, and
    all larger distances share the last bucket. With `both_sides`, half of all buckets are for keys after the
    query. Without `both_sides`, such keys count as distance 0.
    """
    first = torch.zeros_like(distance)
    if both_sides:
        count //= 2
        first = (distance > 0) * count
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = count // 2
    # The clamp avoids the logarithm of 0. Small distances have their own buckets anyway.
    far = (distance.clamp(min=1).float() / exact).log() / math.log(furthest / exact) * (count - exact)
    grown = (exact + far.long()).clamp(max=count - 1)
    return first + torch.where(distance < exact, distance, grown)


class RelativeBias(nn.Module):
    """A bias on the scores for each head and bucket. All layers of a stack share one table."""

    def __init__(self, heads: int, *, both_sides: bool, count: int = 32, furthest: int = 128) -> None:
        super().__init__()
        self.table = nn.Embedding(count, heads)
        self.both_sides = both_sides
        self.furthest = furthest

    def forward(self, queries: int, keys: int) -> Float[Tensor, "1 heads {queries} {keys}"]:
        """The last query has the same position as the last key."""
        at = torch.arange(keys, device=self.table.weight.device)
        distance = at - at[keys - queries :, None]
        bucket = buckets(
            distance, both_sides=self.both_sides, count=self.table.num_embeddings, furthest=self.furthest
        )
        return self.table(bucket).permute(2, 0, 1)[None]


class Attention(nn.Module):
    """Attention without bias vectors. The initial query weights contain the division by √dim."""

    def __init__(self, model: int, heads: int, dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(model, heads * dim, bias=False)
        self.key = nn.Linear(model, heads * dim, bias=False)
        self.value = nn.Linear(model, heads * dim, bias=False)
        self.output = nn.Linear(heads * dim, model, bias=False)

    def keys_values(
        self, context: Float[Tensor, "batch keys model"]
    ) -> tuple[Float[Tensor, "batch heads keys dim"], Float[Tensor, "batch heads keys dim"]]:
        return split_heads(self.key(context), self.heads), split_heads(self.value(context), self.heads)

    def forward(
        self,
        x: Float[Tensor, "batch queries model"],
        kv: tuple[Float[Tensor, "batch heads keys dim"], Float[Tensor, "batch heads keys dim"]],
        bias: Float[Tensor, "#batch #heads #queries keys"] | None,
    ) -> Float[Tensor, "batch queries model"]:
        """`bias` is added to the scores. It is -inf where a query must not attend."""
        scores = split_heads(self.query(x), self.heads) @ kv[0].mT
        if bias is not None:
            scores = scores + bias
        return self.output(merge_heads(scores.softmax(-1) @ kv[1]))


class EncoderLayer(nn.Module):
    """Section 2.1: a layer with pre-norm, RMSNorm and no bias vectors."""

    def __init__(self, model: int, heads: int, dim: int, hidden: int, *, dropout: float, eps: float) -> None:
        super().__init__()
        self.attention = Attention(model, heads, dim)
        self.feed_forward = feed_forward(model, hidden, dropout)
        self.norms = nn.ModuleList(RMSNorm(model, eps=eps) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "batch source model"], bias: Float[Tensor, "#batch heads source source"]
    ) -> Float[Tensor, "batch source model"]:
        normed = self.norms[0](x)
        x = x + self.dropout(self.attention(normed, self.attention.keys_values(normed), bias))
        return x + self.dropout(self.feed_forward(self.norms[1](x)))


@dataclass
class Cache:
    """A decoder layer's cache: keys and values of the source and of the target so far.

    written  keys and values with room for more, unused beyond `length`; None to keep nothing
    """

    read: tuple[Tensor, Tensor]
    written: Float[Tensor, "2 batch heads room dim"] | None = None
    length: int = 0


class DecoderLayer(nn.Module):
    def __init__(self, model: int, heads: int, dim: int, hidden: int, *, dropout: float, eps: float) -> None:
        super().__init__()
        self.attention = Attention(model, heads, dim)
        self.source_attention = Attention(model, heads, dim)
        self.feed_forward = feed_forward(model, hidden, dropout)
        self.norms = nn.ModuleList(RMSNorm(model, eps=eps) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch target model"],
        cache: Cache,
        bias: Float[Tensor, "1 heads target keys"],
        visible: Float[Tensor, "batch 1 1 source"] | None,
    ) -> Float[Tensor, "batch target model"]:
        """`bias` contains the position bias and the causal mask. `visible` masks padding in the source."""
        normed = self.norms[0](x)
        k, v = self.attention.keys_values(normed)
        if cache.written is not None:
            end = cache.length + x.shape[1]
            cache.written[0, :, :, cache.length : end], cache.written[1, :, :, cache.length : end] = k, v
            k, v = cache.written[:, :, :, :end]
            cache.length = end
        x = x + self.dropout(self.attention(normed, (k, v), bias))
        x = x + self.dropout(self.source_attention(self.norms[1](x), cache.read, visible))
        return x + self.dropout(self.feed_forward(self.norms[2](x)))


def feed_forward(model: int, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(model, hidden, bias=False),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, model, bias=False),
    )


class T5(nn.Module):
    """Sections 2.1 and 3.1.1. The defaults are those of the base model.

    One matrix is both the embedding and, divided by √model, the readout.

    dim      size of a head
    buckets  number of buckets for relative positions, up to `furthest` tokens away
    """

    def __init__(
        self,
        vocab: int = 32_128,
        *,
        model: int = 768,
        heads: int = 12,
        dim: int = 64,
        hidden: int = 3072,
        layers: int = 12,
        buckets: int = 32,
        furthest: int = 128,
        dropout: float = 0.1,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        sizes = {"model": model, "heads": heads, "dim": dim, "hidden": hidden, "dropout": dropout, "eps": eps}
        self.embedding = nn.Embedding(vocab, model)
        self.encoder = nn.ModuleList(EncoderLayer(**sizes) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderLayer(**sizes) for _ in range(layers))
        self.encoder_bias = RelativeBias(heads, both_sides=True, count=buckets, furthest=furthest)
        self.decoder_bias = RelativeBias(heads, both_sides=False, count=buckets, furthest=furthest)
        self.encoder_norm = RMSNorm(model, eps=eps)
        self.decoder_norm = RMSNorm(model, eps=eps)
        self.dropout = nn.Dropout(dropout)
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise as in the released code.

        The variance is 1 / inputs, but 1 / (inputs · dim) for queries and 1 for the embedding.
        """
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=part.in_features**-0.5)
            if isinstance(part, RelativeBias):
                nn.init.normal_(part.table.weight, std=self.embedding.embedding_dim**-0.5)
        for part in self.modules():
            if isinstance(part, Attention):
                dim = part.query.out_features // part.heads
                nn.init.normal_(part.query.weight, std=(part.query.in_features * dim) ** -0.5)
        nn.init.normal_(self.embedding.weight)

    def encode(
        self, source: Int[Tensor, "batch source"], *, visible: Bool[Tensor, "batch source"] | None = None
    ) -> Float[Tensor, "batch source model"]:
        """`visible` is False for padding."""
        x = self.dropout(self.embedding(source))
        bias = self.encoder_bias(source.shape[1], source.shape[1])
        if visible is not None:
            bias = bias + hidden(visible, bias.dtype)
        for layer in self.encoder:
            x = layer(x, bias)
        return self.dropout(self.encoder_norm(x))

    def decode(
        self,
        written: Int[Tensor, "batch target"],
        encoded: Float[Tensor, "batch source model"],
        *,
        visible: Bool[Tensor, "batch source"] | None = None,
    ) -> Float[Tensor, "batch target vocab"]:
        """Next-token logits at each position of `written`, whose first token is the padding token."""
        caches = [Cache(layer.source_attention.keys_values(encoded)) for layer in self.decoder]
        return self.go_on(written, caches, visible=visible)

    def empty_cache(self, encoded: Float[Tensor, "batch source model"], room: int) -> list[Cache]:
        """A cache for each decoder layer, with keys and values of the source and `room` for the target."""
        caches = []
        for layer in self.decoder:
            k, v = layer.source_attention.keys_values(encoded)
            caches.append(Cache((k, v), k.new_empty(2, *k.shape[:2], room, k.shape[3])))
        return caches

    def go_on(
        self,
        written: Int[Tensor, "batch target"],
        caches: list[Cache],
        *,
        visible: Bool[Tensor, "batch source"] | None = None,
    ) -> Float[Tensor, "batch target vocab"]:
        """Next-token logits for `written`, which follows the tokens in the caches. Updates the caches."""
        x = self.dropout(self.embedding(written))
        queries, keys = written.shape[1], caches[0].length + written.shape[1]
        bias = self.decoder_bias(queries, keys)
        bias = bias + bias.new_full((queries, keys), -math.inf).triu(keys - queries + 1)
        seen = None if visible is None else hidden(visible, bias.dtype)
        for layer, cache in zip(self.decoder, caches, strict=True):
            x = layer(x, cache, bias, seen)
        x = self.dropout(self.decoder_norm(x))
        return F.linear(x * x.shape[-1] ** -0.5, self.embedding.weight)

    def forward(
        self,
        source: Int[Tensor, "batch source"],
        written: Int[Tensor, "batch target"],
        *,
        visible: Bool[Tensor, "batch source"] | None = None,
    ) -> Float[Tensor, "batch target vocab"]:
        return self.decode(written, self.encode(source, visible=visible), visible=visible)

    def loss(
        self, source: Int[Tensor, "batch source"], target: Int[Tensor, "batch target"], *, filling: int = 0
    ) -> Float[Tensor, ""]:
        """Mean loss in nats per target token. The decoder's first input is the padding token."""
        written = F.pad(target[:, :-1], (1, 0), value=filling)
        return F.cross_entropy(self(source, written).flatten(0, 1), target.flatten())

    @torch.no_grad()
    def generate(
        self, source: Int[Tensor, "batch source"], count: int, *, filling: int = 0
    ) -> Int[Tensor, "batch {count}"]:
        """Greedy decoding of `count` tokens."""
        caches = self.empty_cache(self.encode(source), count)
        written = [torch.full_like(source[:, :1], filling)]
        for _ in range(count):
            written.append(self.go_on(written[-1], caches)[:, -1:].argmax(-1))
        return torch.cat(written[1:], 1)


def hidden(visible: Bool[Tensor, "batch keys"], dtype: torch.dtype) -> Float[Tensor, "batch 1 1 keys"]:
    """Additive mask for the attention scores: -inf for padding."""
    return torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, -math.inf)[:, None, None]
