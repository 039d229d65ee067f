"""Implements ByT5: T5 on bytes, with gated feed-forward layers, an untied readout, and a deeper encoder.

Dimensions as in `t5.model`: batch, source and target (bytes read and written), vocab, model.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..t5 import T5, Cache
from ..t5.model import hidden as hides

PAD, END, UNKNOWN = range(3)
FIRST_BYTE = 3
VOCAB = 384  # 256 bytes, three special ids, and 125 unused ids, for a round number
FIRST_SENTINEL = FIRST_BYTE + 255  # section 3.1: the last byte ids serve as sentinels, in descending order
MEAN_SPAN = 20.0  # in bytes, because T5's mean of 3 would be only part of a word


def to_ids(text: str | bytes) -> list[int]:
    """The UTF-8 bytes of a text, each plus `FIRST_BYTE`, and the end id."""
    written = text.encode() if isinstance(text, str) else text
    return [*(byte + FIRST_BYTE for byte in written), END]


def to_bytes(ids: list[int]) -> bytes:
    """The bytes among `ids` up to the end id. Other ids are skipped."""
    ids = ids[: ids.index(END)] if END in ids else ids
    return bytes(i - FIRST_BYTE for i in ids if FIRST_BYTE <= i < FIRST_BYTE + 256)


def padded(texts: list[list[int]]) -> tuple[Int[Tensor, "batch source"], Bool[Tensor, "batch source"]]:
    """Ids of the texts padded to one length, and a mask that is False at padding."""
    length = max(map(len, texts))
    ids = torch.tensor([[*text, *[PAD] * (length - len(text))] for text in texts])
    return ids, ids != PAD


class GatedGELU(nn.Module):
    """The feed-forward layer of mT5 and ByT5 (Shazeer 2020, arXiv 2002.05202), with the tanh form of GELU."""

    def __init__(self, model: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.gate = nn.Linear(model, hidden, bias=False)
        self.up = nn.Linear(model, hidden, bias=False)
        self.down = nn.Linear(hidden, model, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "*batch model"]) -> Float[Tensor, "*batch model"]:
        return self.down(self.dropout(F.gelu(self.gate(x), approximate="tanh") * self.up(x)))


class ByT5(T5):
    """Table 1. The defaults are the small model. The output matrix is not tied to the embedding.

    layers  number of encoder layers and of decoder layers
    """

    def __init__(
        self,
        vocab: int = VOCAB,
        *,
        model: int = 1472,
        heads: int = 6,
        dim: int = 64,
        hidden: int = 3584,
        layers: tuple[int, int] = (12, 4),
        dropout: float = 0.1,
    ) -> None:
        super().__init__(
            vocab, model=model, heads=heads, dim=dim, hidden=hidden, layers=max(layers), dropout=dropout
        )
        self.encoder = self.encoder[: layers[0]]
        self.decoder = self.decoder[: layers[1]]
        for layer in (*self.encoder, *self.decoder):
            layer.feed_forward = GatedGELU(model, hidden, dropout)
        self.readout = nn.Linear(model, vocab, bias=False)
        self.init_weights()

    def go_on(
        self,
        written: Int[Tensor, "batch target"],
        caches: list[Cache],
        *,
        visible: Bool[Tensor, "batch source"] | None = None,
    ) -> Float[Tensor, "batch target vocab"]:
        """`T5.go_on`, with logits from `readout`."""
        first, length = caches[0].length, written.shape[1]
        bias = self.decoder_bias(length, first + length)
        later = torch.ones_like(bias[0, 0], dtype=torch.bool).triu(first + 1)
        bias = bias.masked_fill(later, -torch.inf)
        shown = None if visible is None else hides(visible, bias.dtype)
        x = self.dropout(self.embedding(written))
        for layer, cache in zip(self.decoder, caches, strict=True):
            x = layer(x, cache, bias, shown)
        return self.readout(self.dropout(self.decoder_norm(x)))
