"""Implements the Transformer decoder, its initialisation, and the output layer for a task."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..attention import MultiHeadAttention
from ..layernorm import LayerNorm

VOCAB = 40_478  # 40,000 merges and 478 initial symbols


class Block(nn.Module):
    """Section 4.1: a post-norm Transformer layer.

    Each sub-layer is followed by dropout, the residual sum and layer normalisation.

    gelu     "tanh" for the approximation of the released code, "none" for the exact function
    dropout  probability at each sub-layer's output (section 4.1's dropout of attention weights is left out)
    """

    def __init__(
        self,
        model: int,
        heads: int,
        *,
        hidden: int | None = None,
        gelu: Literal["tanh", "none"] = "tanh",
        eps: float = 1e-5,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        hidden = hidden or 4 * model
        self.attention = MultiHeadAttention(model, heads, bias=True)
        self.feed_forward = nn.Sequential(
            nn.Linear(model, hidden), nn.GELU(approximate=gelu), nn.Linear(hidden, model)
        )
        self.norms = nn.ModuleList(LayerNorm(model, eps=eps) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch tokens model"],
        *,
        mask: Bool[Tensor, "#batch #tokens tokens"] | None = None,
        causal: bool = False,
    ) -> Float[Tensor, "batch tokens model"]:
        """`mask` is False for tokens that must not be attended to."""
        x = self.norms[0](x + self.dropout(self.attention(x, mask=mask, causal=causal)))
        return self.norms[1](x + self.dropout(self.feed_forward(x)))


class GPT(nn.Module):
    """Equation 2. The defaults are the paper's. The output matrix is tied to the embedding.

    context  maximum number of tokens, each position with a learned embedding
    std      standard deviation of the initial weights and embeddings; biases start at 0
    """

    def __init__(
        self,
        vocab: int = VOCAB,
        *,
        context: int = 512,
        model: int = 768,
        heads: int = 12,
        layers: int = 12,
        std: float = 0.02,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab, model)
        self.positions = nn.Embedding(context, model)
        self.blocks = nn.ModuleList(Block(model, heads, dropout=dropout) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.apply(lambda part: init_weights(part, std))

    def hidden(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens model"]:
        """Hidden states of the last layer. Raises ValueError for more tokens than positions."""
        tokens, room = ids.shape[1], self.positions.num_embeddings
        if tokens > room:
            raise ValueError(f"the text has {tokens} tokens, but the model has {room} positions")
        x = self.dropout(self.tokens(ids) + self.positions.weight[:tokens])
        for block in self.blocks:
            x = block(x, causal=True)
        return x

    def forward(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens vocab"]:
        """Logits of the next token after each of `ids`."""
        return F.linear(self.hidden(ids), self.tokens.weight)

    def loss(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, ""]:
        """Equation 1: mean loss in nats per token after the first."""
        return F.cross_entropy(self(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def init_weights(part: nn.Module, std: float) -> None:
    if isinstance(part, nn.Linear | nn.Embedding):
        nn.init.normal_(part.weight, std=std)
    if isinstance(part, nn.Linear) and part.bias is not None:
        nn.init.zeros_(part.bias)


class Classifier(nn.Module):
    """Section 3.2: a linear layer on the last hidden state of the last token, the extract token.

    gpt  a model whose vocabulary includes the start and extract tokens, which do not occur in pre-training
    """

    def __init__(self, gpt: GPT, classes: int, *, std: float = 0.02) -> None:
        super().__init__()
        self.gpt = gpt
        self.output = nn.Linear(gpt.tokens.embedding_dim, classes)
        init_weights(self.output, std)

    def forward(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch classes"]:
        return self.output(self.gpt.hidden(ids)[:, -1])

    def loss(
        self, ids: Int[Tensor, "batch tokens"], label: Int[Tensor, " batch"], *, auxiliary: float = 0.5
    ) -> Float[Tensor, ""]:
        """Equation 5: the task's loss plus `auxiliary` times the language-modelling loss of the input."""
        hidden = self.gpt.hidden(ids)
        task = F.cross_entropy(self.output(hidden[:, -1]), label)
        read = F.linear(hidden[:, :-1], self.gpt.tokens.weight)
        return task + auxiliary * F.cross_entropy(read.flatten(0, 1), ids[:, 1:].flatten())


def framed(texts: Int[Tensor, "batch tokens"], start: int, extract: int) -> Int[Tensor, "batch framed"]:
    """Section 3.3: puts the start token before each text, and the extract token after it."""
    ends = texts.new_tensor([[start, extract]]).expand(len(texts), 2)
    return torch.cat((ends[:, :1], texts, ends[:, 1:]), 1)
