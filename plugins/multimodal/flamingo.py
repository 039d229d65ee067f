"""Flamingo's cross-attention from a frozen language model to images, with gates that are closed initially.

Alayrac et al. 2022, "Flamingo: a Visual Language Model for Few-Shot Learning", arXiv
2204.14198, section 2.2.

Dimensions: batch, tokens, seen (number of image vectors), model, context (size of an image vector).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..attention import MultiHeadAttention
from ..gpt2 import GPT2
from ..layernorm import LayerNorm

Text = Float[Tensor, "batch tokens model"]
Seen = Float[Tensor, "batch seen context"]


class GatedCrossAttention(nn.Module):
    """x + tanh(α) attention(x, seen), then x + tanh(β) feed_forward(x). α and β are initialised to 0."""

    def __init__(self, model: int, heads: int, *, context: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(LayerNorm(model) for _ in range(2))
        self.attention = MultiHeadAttention(model, heads, context=context)
        self.feed_forward = nn.Sequential(nn.Linear(model, 4 * model), nn.GELU(), nn.Linear(4 * model, model))
        self.gates = nn.Parameter(torch.zeros(2))

    def forward(self, x: Text, seen: Seen) -> Text:
        first, second = self.gates.tanh()
        x = x + first * self.attention(self.norms[0](x), seen)
        return x + second * self.feed_forward(self.norms[1](x))


class Flamingo(nn.Module):
    """A frozen language model with a gated cross-attention layer before each of its blocks.

    context  size of the image vectors
    """

    def __init__(self, language: GPT2, *, context: int) -> None:
        super().__init__()
        model, heads = language.tokens.embedding_dim, language.blocks[0].attention.heads
        self.language = language.requires_grad_(False)
        self.gated = nn.ModuleList(
            GatedCrossAttention(model, heads, context=context) for _ in language.blocks
        )

    def forward(self, ids: Tensor, seen: Seen) -> Float[Tensor, "batch tokens vocab"]:
        """Logits of the next token after each token of `ids` (batch, tokens)."""
        language = self.language
        x = language.tokens(ids) + language.positions.weight[: ids.shape[1]]
        for gated, block in zip(self.gated, language.blocks, strict=True):
            x = block(gated(x, seen))
        return nn.functional.linear(language.norm(x), language.tokens.weight)
