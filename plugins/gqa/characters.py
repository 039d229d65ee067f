"""Implements the experiment's character language model with multi-head attention."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .model import GroupedQueryAttention

HEADS = 8
TOKENS = 48  # length of a window


class Block(nn.Module):
    def __init__(self, model: int) -> None:
        super().__init__()
        self.attention = GroupedQueryAttention(model, HEADS, HEADS)
        self.norms = nn.ModuleList(nn.LayerNorm(model) for _ in range(2))
        self.mlp = nn.Sequential(nn.Linear(model, 4 * model), nn.GELU(), nn.Linear(4 * model, model))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = x + self.attention(self.norms[0](x), bias=bias, causal=True)
        return x + self.mlp(self.norms[1](x))


class Characters(nn.Module):
    """A causal character model. Each head has a learned bias for each distance, shared by the layers."""

    def __init__(self, vocab: int, *, model: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, model)
        self.bias = nn.Parameter(torch.zeros(HEADS, TOKENS))
        self.blocks = nn.ModuleList(Block(model) for _ in range(layers))
        self.norm = nn.LayerNorm(model)
        self.readout = nn.Linear(model, vocab)

    def forward(self, text: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens vocab"]:
        place = torch.arange(text.shape[1], device=text.device)
        bias = self.bias[:, (place[:, None] - place).clamp(min=0)]
        x = self.embed(text)
        for block in self.blocks:
            x = block(x, bias)
        return self.readout(self.norm(x))

    def loss(self, text: Int[Tensor, "batch characters"]) -> Float[Tensor, ""]:
        """Mean loss in nats per character, over all characters but the first."""
        return F.cross_entropy(self(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
