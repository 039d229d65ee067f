"""Implements banded attention with a few global tokens, and the encoder that uses it.

Dimensions: batch, heads, tokens, dim (of a head), model (hidden size), globals (number of global tokens).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..attention import merge_heads, scaled_dot_product_attention, split_heads
from ..bert import init_weights
from ..gpt import Block
from ..roberta import RoBERTa

Vectors = Float[Tensor, "batch heads tokens dim"]
Positions = Int[Tensor, "batch globals"]


def banded_attention(
    q: Vectors,
    k: Vectors,
    v: Vectors,
    *,
    window: int,
    visible: Bool[Tensor, "batch tokens"] | None = None,
    everywhere: Positions | None = None,
) -> Vectors:
    """Section 3.1: each token attends to itself, `window` tokens on either side and the tokens `everywhere`.

    Queries are split into pieces of `window` tokens, and each piece is multiplied by the keys of three
    pieces. Time and memory are proportional to tokens · window. A global token counts only once, even if it
    lies in the window. A query without a visible key gets zeros.

    visible  False for padding
    """
    tokens, dim = q.shape[-2:]
    pieces = -(-tokens // window)
    filling = pieces * window - tokens
    at = torch.arange(tokens, device=q.device)
    seen = torch.ones(len(q), tokens, dtype=torch.bool, device=q.device) if visible is None else visible
    near = seen if everywhere is None else seen.scatter(1, everywhere, False)
    queries = F.pad(q * dim**-0.5, (0, 0, 0, filling)).unflatten(2, (pieces, window))
    keys, values = (F.pad(x, (0, 0, window, window + filling)).unfold(2, 3 * window, window) for x in (k, v))
    # Query i of a piece has index i + window among the keys of its three pieces.
    offset = torch.arange(3 * window, device=q.device) - torch.arange(window, device=q.device)[:, None]
    band = (offset >= 0) & (offset <= 2 * window)
    there = F.pad(near, (window, window + filling)).unfold(1, 3 * window, window)
    allowed = band & there[:, None, :, None]
    scores = (queries @ keys).masked_fill(~allowed, -torch.inf)
    if everywhere is not None:
        chosen = everywhere[:, None, :, None].expand(-1, q.shape[1], -1, dim)
        hidden = ~seen.gather(1, everywhere)[:, None, None, None]
        far = queries @ k.gather(2, chosen).mT[:, :, None]
        scores = torch.cat((scores, far.masked_fill(hidden, -torch.inf)), -1)
    # A row of only -inf would give NaN, also in the gradient.
    blind = scores.amax(-1, keepdim=True) == -torch.inf
    weights = scores.masked_fill(blind, 0).softmax(-1).masked_fill(blind, 0)
    found = weights[..., : 3 * window] @ values.mT
    if everywhere is not None:
        found = found + weights[..., 3 * window :] @ v.gather(2, chosen)[:, :, None]
    return found.flatten(2, 3)[:, :, at]


class LongformerAttention(nn.Module):
    """Section 3.1: banded self-attention. Global tokens attend to all tokens through separate projections."""

    def __init__(self, model: int, heads: int, window: int) -> None:
        super().__init__()
        if model % heads:
            raise ValueError(f"a model of width {model} cannot be split over {heads} heads")
        self.heads = heads
        self.window = window
        self.query, self.key, self.value = (nn.Linear(model, model) for _ in range(3))
        self.query_global, self.key_global, self.value_global = (nn.Linear(model, model) for _ in range(3))
        self.output = nn.Linear(model, model)

    def copy_to_global(self) -> None:
        """Section 3.1: initialises the global projections with the local ones."""
        for name in ("query", "key", "value"):
            getattr(self, f"{name}_global").load_state_dict(getattr(self, name).state_dict())

    def forward(
        self,
        x: Float[Tensor, "batch tokens model"],
        *,
        visible: Bool[Tensor, "batch tokens"] | None = None,
        everywhere: Positions | None = None,
    ) -> Float[Tensor, "batch tokens model"]:
        q, k, v = (split_heads(part(x), self.heads) for part in (self.query, self.key, self.value))
        found = banded_attention(q, k, v, window=self.window, visible=visible, everywhere=everywhere)
        if everywhere is not None:
            found = found.scatter(2, *self.of_global(x, everywhere, visible))
        return self.output(merge_heads(found))

    def of_global(
        self,
        x: Float[Tensor, "batch tokens model"],
        everywhere: Positions,
        visible: Bool[Tensor, "batch tokens"] | None,
    ) -> tuple[Int[Tensor, "batch heads globals dim"], Float[Tensor, "batch heads globals dim"]]:
        """Attention of the global tokens to all tokens. Returns the outputs' positions and the outputs."""
        asking = x.gather(1, everywhere[..., None].expand(-1, -1, x.shape[-1]))
        q = split_heads(self.query_global(asking), self.heads)
        k, v = (split_heads(part(x), self.heads) for part in (self.key_global, self.value_global))
        mask = None if visible is None else visible[:, None, None]
        found = scaled_dot_product_attention(q, k, v, mask=mask)
        return everywhere[:, None, :, None].expand_as(found), found


class LongformerBlock(Block):
    """RoBERTa's block, with Longformer's attention."""

    def __init__(self, model: int, heads: int, window: int, *, eps: float, dropout: float) -> None:
        super().__init__(model, heads, gelu="none", eps=eps, dropout=dropout)
        self.attention = LongformerAttention(model, heads, window)

    def forward(
        self,
        x: Float[Tensor, "batch tokens model"],
        *,
        visible: Bool[Tensor, "batch tokens"] | None = None,
        everywhere: Positions | None = None,
    ) -> Float[Tensor, "batch tokens model"]:
        x = self.norms[0](x + self.dropout(self.attention(x, visible=visible, everywhere=everywhere)))
        return self.norms[1](x + self.dropout(self.feed_forward(x)))


class Longformer(RoBERTa):
    """The encoder of section 5. The defaults are the base model's.

    window  tokens on either side: 256, half of the paper's window size
    """

    def __init__(
        self,
        vocab: int = 50_265,
        *,
        context: int = 4096,
        window: int = 256,
        model: int = 768,
        heads: int = 12,
        layers: int = 12,
        std: float = 0.02,
        eps: float = 1e-5,
        dropout: float = 0.1,
    ) -> None:
        sizes = {"context": context, "model": model, "heads": heads}
        super().__init__(vocab, **sizes, layers=0, std=std, eps=eps, dropout=dropout)
        self.blocks = nn.ModuleList(
            LongformerBlock(model, heads, window, eps=eps, dropout=dropout) for _ in range(layers)
        )
        self.blocks.apply(lambda part: init_weights(part, std))
        for block in self.blocks:
            block.attention.copy_to_global()

    def forward(
        self,
        ids: Int[Tensor, "batch tokens"],
        *,
        everywhere: Positions | None = None,
        visible: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch tokens model"]:
        """Hidden states of the last layer, one per token. `everywhere` lists each text's global tokens."""
        x = self.tokens(ids) + self.positions(self.position_ids(ids))
        x = self.dropout(self.norm(x + self.segments(torch.zeros_like(ids))))
        for block in self.blocks:
            x = block(x, visible=visible, everywhere=everywhere)
        return x
