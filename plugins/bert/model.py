"""Implements the encoder, the heads for pre-training, and the masking of tokens.

Dimensions: batch, tokens, vocab, model (hidden size).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..gpt import Block
from ..layernorm import LayerNorm

Ids = Int[Tensor, "batch tokens"]
Vectors = Float[Tensor, "batch tokens model"]


class BERT(nn.Module):
    """Section 3. The defaults are BERT-base, and `LARGE` holds the settings of BERT-large.

    context   longest sequence; each position has a learned embedding
    segments  number of sentences in an input: two for a pair
    eps       eps of the normalisations, as in the released code
    """

    def __init__(
        self,
        vocab: int = 30_522,
        *,
        context: int = 512,
        segments: int = 2,
        model: int = 768,
        heads: int = 12,
        layers: int = 12,
        std: float = 0.02,
        eps: float = 1e-12,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab, model)
        self.positions = nn.Embedding(context, model)
        self.segments = nn.Embedding(segments, model)
        self.norm = LayerNorm(model, eps=eps)
        self.blocks = nn.ModuleList(
            Block(model, heads, gelu="none", eps=eps, dropout=dropout) for _ in range(layers)
        )
        self.pooler = nn.Linear(model, model)
        self.dropout = nn.Dropout(dropout)
        self.apply(lambda part: init_weights(part, std))

    def forward(
        self,
        ids: Ids,
        *,
        segment: Ids | None = None,
        visible: Bool[Tensor, "batch tokens"] | None = None,
        causal: bool = False,
    ) -> Vectors:
        """Hidden states of the last layer, one per token.

        segment  sentence of each token (default: all tokens belong to the first)
        visible  False at padding
        causal   the paper's control (section 5.1), where tokens attend only to themselves and the left side
        """
        segment = torch.zeros_like(ids) if segment is None else segment
        x = self.tokens(ids) + self.positions(self.position_ids(ids)) + self.segments(segment)
        x = self.dropout(self.norm(x))
        mask = None if visible is None else visible[:, None]
        for block in self.blocks:
            x = block(x, mask=mask, causal=causal)
        return x

    def position_ids(self, ids: Ids) -> Ids:
        return torch.arange(ids.shape[1], device=ids.device).expand_as(ids)

    def pooled(self, hidden: Vectors) -> Float[Tensor, "batch model"]:
        """A vector for the whole input: the first token's hidden state through a dense layer and tanh."""
        return self.pooler(hidden[:, 0]).tanh()


LARGE = {"model": 1024, "heads": 16, "layers": 24}


def init_weights(part: nn.Module, std: float) -> None:
    """Initialise as in the released code: normal, truncated at two standard deviations, and zero biases."""
    if isinstance(part, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(part.weight, std=std, a=-2 * std, b=2 * std)
    if isinstance(part, nn.Linear) and part.bias is not None:
        nn.init.zeros_(part.bias)


class MaskedHead(nn.Module):
    """A dense layer, GELU and normalisation, then logits from the embedding matrix and a separate bias."""

    def __init__(self, vocab: int, model: int, *, std: float = 0.02, eps: float = 1e-12) -> None:
        super().__init__()
        self.dense = nn.Linear(model, model)
        self.norm = LayerNorm(model, eps=eps)
        self.bias = nn.Parameter(torch.zeros(vocab))
        init_weights(self.dense, std)

    def forward(
        self, hidden: Float[Tensor, "*batch model"], embedding: Float[Tensor, "vocab model"]
    ) -> Float[Tensor, "*batch vocab"]:
        return F.linear(self.norm(F.gelu(self.dense(hidden))), embedding, self.bias)


class MaskedModel(nn.Module):
    """An encoder with a head that predicts masked tokens."""

    def __init__(self, bert: BERT, *, std: float = 0.02) -> None:
        super().__init__()
        vocab, model = bert.tokens.weight.shape
        self.bert = bert
        self.head = MaskedHead(vocab, model, std=std, eps=bert.norm.eps)

    def forward(
        self, ids: Ids, *, visible: Bool[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch tokens vocab"]:
        """Logits of the token at each position."""
        return self.head(self.bert(ids, visible=visible), self.bert.tokens.weight)

    def masked_loss(
        self, masked: "Masked", *, visible: Bool[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, ""]:
        """Mean loss in nats over the chosen tokens, including those left unchanged."""
        hidden = self.bert(masked.ids, visible=visible)[masked.chosen]
        return F.cross_entropy(self.head(hidden, self.bert.tokens.weight), masked.original[masked.chosen])


class PreTraining(MaskedModel):
    """Section 3.1: both pre-training tasks on one encoder."""

    def __init__(self, bert: BERT, *, std: float = 0.02) -> None:
        super().__init__(bert, std=std)
        self.next = nn.Linear(bert.tokens.embedding_dim, 2)
        init_weights(self.next, std)

    def forward(
        self, ids: Ids, *, segment: Ids | None = None, visible: Bool[Tensor, "batch tokens"] | None = None
    ) -> tuple[Float[Tensor, "batch tokens vocab"], Float[Tensor, "batch 2"]]:
        """Logits of the token at each position, and of next-sentence prediction (0: the second sentence
        follows the first, 1: it does not)."""
        hidden = self.bert(ids, segment=segment, visible=visible)
        return self.head(hidden, self.bert.tokens.weight), self.next(self.bert.pooled(hidden))

    def next_loss(self, ids: Ids, segment: Ids, follows: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Task 2: loss of predicting whether the second sentence follows the first (0) or not (1)."""
        return F.cross_entropy(self.next(self.bert.pooled(self.bert(ids, segment=segment))), follows)


class Masked(NamedTuple):
    """The model's input, the positions whose tokens it predicts, and the original text."""

    ids: Ids
    chosen: Bool[Tensor, "batch tokens"]
    original: Ids


def mask_tokens(
    ids: Ids,
    generator: torch.Generator,
    *,
    vocab: int,
    mask: int,
    special: Bool[Tensor, "batch tokens"] | None = None,
    rate: float = 0.15,
) -> Masked:
    """Section 3.1, task 1: 80 % of the chosen tokens become `mask`, 10 % become a random token and 10 % stay.

    vocab    random tokens are drawn from the first `vocab` ids
    special  True where no token may be chosen: separators, padding

    Samples on the CPU. Chooses at least one token of the batch if any may be chosen.
    """
    dice, fate = (torch.rand(ids.shape, generator=generator).to(ids.device) for _ in range(2))
    drawn = torch.randint(vocab, ids.shape, generator=generator).to(ids.device)
    if special is not None:
        dice = dice.masked_fill(special, 2.0)
    chosen = (dice < rate) | ((dice == dice.min()) & (dice <= 1))
    return Masked(replaced(ids, chosen, fate, drawn, mask=mask), chosen, ids)


def replaced(
    ids: Ids,
    chosen: Bool[Tensor, "batch tokens"],
    fate: Float[Tensor, "batch tokens"],
    drawn: Ids,
    *,
    mask: int,
) -> Ids:
    """Chosen tokens become `mask` if their fate is below 0.8, and the token in `drawn` from 0.9 on."""
    return torch.where(chosen, torch.where(fate < 0.8, mask, torch.where(fate < 0.9, ids, drawn)), ids)
