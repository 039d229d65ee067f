"""Attention to a segment and its memory, with scores by content and distance, and the language model.

Dimensions: batch, tokens (of a segment), memory (tokens before it), keys (memory and tokens), heads, dim (of
a head), model (hidden size), vocab.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..attention import merge_heads, split_heads
from ..layernorm import LayerNorm
from ..transformer import sines

Memory = list[Float[Tensor, "batch memory model"]]  # inputs of each layer, the oldest token first


def shifted(scores: Float[Tensor, "*batch tokens keys"]) -> Float[Tensor, "*batch tokens keys"]:
    """Appendix B: move distance scores to the columns of their keys.

    Column r of row i has the score at distance `keys - 1 - r`. In the result, column j has the score of key
    j, which is `i + keys - tokens - j` tokens before query i. Entries right of the diagonal are meaningless
    and must be masked.
    """
    tokens, keys = scores.shape[-2:]
    padded = F.pad(scores, (1, 0)).flatten(-2)
    return padded[..., tokens:].unflatten(-1, (tokens, keys))


class RelativeAttention(nn.Module):
    """Section 3.3: the score of query i and key j is (q_i + u)·k_j + (q_i + v)·r_(i-j).

    k is projected from the content at j, and r from the sinusoids of the distance, each by its own matrix. u
    and v are the same at all positions and replace the query's own position.
    """

    def __init__(self, model: int, heads: int) -> None:
        super().__init__()
        if model % heads:
            raise ValueError(f"a model of width {model} cannot be split over {heads} heads")
        self.heads = heads
        self.query = nn.Linear(model, model, bias=False)
        self.key = nn.Linear(model, model, bias=False)
        self.value = nn.Linear(model, model, bias=False)
        self.position = nn.Linear(model, model, bias=False)
        self.output = nn.Linear(model, model, bias=False)

    def forward(
        self,
        x: Float[Tensor, "batch tokens model"],
        context: Float[Tensor, "batch keys model"],
        distances: Float[Tensor, "keys model"],
        u: Float[Tensor, "heads dim"],
        v: Float[Tensor, "heads dim"],
    ) -> Float[Tensor, "batch tokens model"]:
        """`context` is the memory followed by `x`, `distances` are the sinusoids of keys - 1 down to 0."""
        projected = self.query(x), self.key(context), self.value(context)
        q, k, values = (split_heads(vectors, self.heads) for vectors in projected)
        r = split_heads(self.position(distances), self.heads)
        by_content = (q + u[:, None]) @ k.mT
        by_distance = shifted((q + v[:, None]) @ r.mT)
        tokens, keys = by_content.shape[-2:]
        later = torch.ones(tokens, keys, dtype=torch.bool, device=x.device).triu(keys - tokens + 1)
        scores = (by_content + by_distance) * q.shape[-1] ** -0.5
        weights = scores.masked_fill(later, -torch.inf).softmax(-1)
        return self.output(merge_heads(weights @ values))


class Layer(nn.Module):
    """The Transformer's layer: each sub-layer is followed by dropout, residual sum and normalisation."""

    def __init__(self, model: int, heads: int, hidden: int, *, dropout: float) -> None:
        super().__init__()
        self.attention = RelativeAttention(model, heads)
        self.feed_forward = nn.Sequential(
            nn.Linear(model, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, model)
        )
        self.norms = nn.ModuleList(LayerNorm(model) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch tokens model"],
        context: Float[Tensor, "batch keys model"],
        distances: Float[Tensor, "keys model"],
        u: Float[Tensor, "heads dim"],
        v: Float[Tensor, "heads dim"],
    ) -> Float[Tensor, "batch tokens model"]:
        x = self.norms[0](x + self.dropout(self.attention(x, context, distances, u, v)))
        return self.norms[1](x + self.dropout(self.feed_forward(x)))


class TransformerXL(nn.Module):
    """The defaults are the paper's 12-layer character model (table 2, 41M). Embedding and readout are tied.

    u and v are shared by all layers. The adaptive softmax for word-level vocabularies is left out.

    scale  factor of the input embedding (√model in the released models, which the paper does not mention)
    """

    def __init__(
        self,
        vocab: int = 204,
        *,
        model: int = 512,
        heads: int = 8,
        hidden: int = 2048,
        layers: int = 12,
        std: float = 0.02,
        scale: float = 1.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.embedding = nn.Embedding(vocab, model)
        self.layers = nn.ModuleList(Layer(model, heads, hidden, dropout=dropout) for _ in range(layers))
        self.u, self.v = (nn.Parameter(torch.empty(heads, model // heads)) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(vocab))
        self.dropout = nn.Dropout(dropout)
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                nn.init.normal_(part.weight, std=std)
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)
        nn.init.normal_(self.u, std=std)
        nn.init.normal_(self.v, std=std)

    def forward(
        self, ids: Int[Tensor, "batch tokens"], memory: Sequence[Tensor] = (), *, keep: int = 0
    ) -> tuple[Float[Tensor, "batch tokens vocab"], Memory]:
        """Next-token logits at each position of `ids`, and the memory for the next segment.

        memory  memory of the tokens before `ids`, as returned by an earlier call
        keep    maximum number of tokens in the new memory, into which no gradient flows
        """
        x = self.dropout(self.embedding(ids) * self.scale)
        before = memory[0].shape[1] if memory else 0
        table = sines(before + ids.shape[1], x.shape[-1]).to(x).flip(0)
        distances = self.dropout(table)
        kept: Memory = []
        for index, layer in enumerate(self.layers):
            context = torch.cat((memory[index], x), 1) if memory else x
            kept.append(context[:, max(context.shape[1] - keep, 0) :].detach())
            x = layer(x, context, distances, self.u, self.v)
        return F.linear(self.dropout(x), self.embedding.weight, self.bias), kept if keep else []

    def loss(
        self, ids: Int[Tensor, "batch one_more"], memory: Sequence[Tensor] = (), *, keep: int = 0
    ) -> tuple[Float[Tensor, "batch tokens"], Memory]:
        """Loss in nats of each token except the first, and the memory of all tokens except the last."""
        logits, kept = self(ids[:, :-1], memory, keep=keep)
        return F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none"), kept
