"""The Transformer of figure 1, with its sinusoids, learning-rate schedule and loss."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..attention import MultiHeadAttention
from ..layernorm import LayerNorm


def sines(tokens: int, model: int, *, dtype: torch.dtype = torch.float32) -> Float[Tensor, "tokens model"]:
    """Section 3.5: column 2i is sin(position / 10000^(2i / model)), column 2i + 1 the cosine of this angle.

    Raises ValueError if `model` is odd.
    """
    if model % 2:
        raise ValueError(f"the size {model} is odd, so sines and cosines cannot be paired")
    speeds = 10000.0 ** (torch.arange(0, model, 2, dtype=torch.float64) / -model)
    angles = torch.arange(tokens, dtype=torch.float64)[:, None] * speeds
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(-2).to(dtype)


def learning_rate(step: int, *, model: int = 512, warmup: int = 4000) -> float:
    """Equation 3: rises linearly for `warmup` steps, then falls as 1 / √step. `step` counts from 1."""
    return model**-0.5 * min(step**-0.5, step * warmup**-1.5)


def smoothed_cross_entropy(
    logits: Float[Tensor, "*batch vocab"], target: Int[Tensor, "*batch"], *, epsilon: float = 0.1
) -> Float[Tensor, ""]:
    """Section 5.4: mean cross entropy with label smoothing.

    The correct word has the target 1 - epsilon, and all words share the rest.
    """
    log_probabilities = logits.log_softmax(-1)
    right = log_probabilities.gather(-1, target[..., None]).mean()
    return -(1 - epsilon) * right - epsilon * log_probabilities.mean()


def feed_forward(model: int, hidden: int) -> nn.Sequential:
    """Equation 2, applied to each position separately."""
    return nn.Sequential(nn.Linear(model, hidden), nn.ReLU(), nn.Linear(hidden, model))


class EncoderLayer(nn.Module):
    """Section 3.1: two sub-layers, each LayerNorm(x + Dropout(sub-layer(x)))."""

    def __init__(self, model: int, heads: int, hidden: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(model, heads)
        self.feed_forward = feed_forward(model, hidden)
        self.norms = nn.ModuleList(LayerNorm(model) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch source model"],
        *,
        visible: Bool[Tensor, "batch 1 source"] | None = None,
    ) -> Float[Tensor, "batch source model"]:
        """`visible` is False for padding of the source."""
        x = self.norms[0](x + self.dropout(self.attention(x, mask=visible)))
        return self.norms[1](x + self.dropout(self.feed_forward(x)))


class DecoderLayer(nn.Module):
    """Section 3.1: causal self-attention, attention to the source, and a feed-forward network."""

    def __init__(self, model: int, heads: int, hidden: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(model, heads)
        self.source_attention = MultiHeadAttention(model, heads)
        self.feed_forward = feed_forward(model, hidden)
        self.norms = nn.ModuleList(LayerNorm(model) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch target model"],
        source: Float[Tensor, "batch source model"],
        *,
        visible: Bool[Tensor, "batch 1 source"] | None = None,
    ) -> Float[Tensor, "batch target model"]:
        x = self.norms[0](x + self.dropout(self.attention(x, causal=True)))
        x = self.norms[1](x + self.dropout(self.source_attention(x, source, mask=visible)))
        return self.norms[2](x + self.dropout(self.feed_forward(x)))


class Transformer(nn.Module):
    """Figure 1. The defaults are the paper's base model. `BIG` has the settings of table 3's big model.

    One matrix serves as source embedding, target embedding and readout (section 3.4).

    context  maximum number of source or target tokens: the length of the table of sinusoids
    """

    def __init__(
        self,
        vocab: int,
        *,
        context: int = 1024,
        model: int = 512,
        heads: int = 8,
        hidden: int = 2048,
        layers: int = 6,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, model)
        nn.init.normal_(self.embedding.weight, std=model**-0.5)  # times √model in `embed`
        self.register_buffer("positions", sines(context, model), persistent=False)
        self.encoder = nn.ModuleList(
            EncoderLayer(model, heads, hidden, dropout=dropout) for _ in range(layers)
        )
        self.decoder = nn.ModuleList(
            DecoderLayer(model, heads, hidden, dropout=dropout) for _ in range(layers)
        )
        self.dropout = nn.Dropout(dropout)

    def embed(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens model"]:
        """Sections 3.4 and 3.5. Raises ValueError for more tokens than `context`."""
        tokens, model = ids.shape[1], self.embedding.embedding_dim
        if tokens > len(self.positions):
            raise ValueError(f"{tokens} tokens, but a context of {len(self.positions)}")
        return self.dropout(self.embedding(ids) * model**0.5 + self.positions[:tokens])

    def encode(
        self, source: Int[Tensor, "batch source"], *, visible: Bool[Tensor, "batch 1 source"] | None = None
    ) -> Float[Tensor, "batch source model"]:
        x = self.embed(source)
        for layer in self.encoder:
            x = layer(x, visible=visible)
        return x

    def decode(
        self,
        written: Int[Tensor, "batch target"],
        encoded: Float[Tensor, "batch source model"],
        *,
        visible: Bool[Tensor, "batch 1 source"] | None = None,
    ) -> Float[Tensor, "batch target vocab"]:
        x = self.embed(written)
        for layer in self.decoder:
            x = layer(x, encoded, visible=visible)
        return F.linear(x, self.embedding.weight)

    def forward(
        self,
        source: Int[Tensor, "batch source"],
        written: Int[Tensor, "batch target"],
        *,
        visible: Bool[Tensor, "batch 1 source"] | None = None,
    ) -> Float[Tensor, "batch target vocab"]:
        """Next-word logits at each position of `written`."""
        return self.decode(written, self.encode(source, visible=visible), visible=visible)


BIG = {"model": 1024, "heads": 16, "hidden": 4096, "dropout": 0.3}
