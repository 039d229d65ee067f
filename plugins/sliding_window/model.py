"""The decoder of Mistral 7B, with block-wise sliding-window attention and a rolling KV cache."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..attention import merge_heads
from ..gqa import GroupedQueryAttention, grouped_attention
from ..rmsnorm import RMSNorm
from ..rope import phases, rotate

Attend = Callable[[Tensor, Tensor, Tensor, int], Tensor]  # maps q, k, v and the window to the output


def window_attention(
    q: Float[Tensor, "batch heads tokens dim"],
    k: Float[Tensor, "batch groups tokens dim"],
    v: Float[Tensor, "batch groups tokens dim"],
    window: int,
) -> Float[Tensor, "batch heads tokens dim"]:
    """Each token attends to itself and the `window` - 1 tokens before it.

    Queries are processed in blocks of `window` tokens, each with the keys of its own block and the previous
    one, so time and memory grow with tokens * window.
    """
    batch, tokens = len(q), q.shape[-2]
    if tokens <= window:
        return grouped_attention(q, k, v, causal=True)
    blocks = -(-tokens // window)
    rest = blocks * window - tokens  # padding of the last block: later than all queries, so never attended to

    def parted(x: Tensor, before: int) -> Tensor:
        """Blocks of shape ((batch blocks), heads, before + window, dim)."""
        padded = F.pad(x, (0, 0, before, rest))
        return padded.unfold(2, before + window, window).permute(0, 2, 1, 4, 3).flatten(0, 1)

    place = torch.arange(window, device=q.device)
    key = torch.arange(-window, window, device=q.device)  # relative to the first token of the block
    seen = (key <= place[:, None]) & (key > place[:, None] - window)
    seen = seen.repeat(blocks, 1, 1)
    seen[0] &= key >= 0
    mask = seen[None, :, None].expand(batch, -1, -1, -1, -1).flatten(0, 1)
    attended = grouped_attention(parted(q, 0), parted(k, window), parted(v, window), mask=mask)
    return attended.unflatten(0, (batch, blocks)).transpose(1, 2).flatten(2, 3)[:, :, :tokens]


@dataclass
class RollingCache:
    """Rotated keys and values of the newest tokens. Token i is in slot i mod window.

    kv      keys and values per layer; slots beyond `length` are unused
    length  number of tokens read so far
    """

    kv: Float[Tensor, "layers 2 batch groups window dim"]
    length: int = 0


def positions_in(window: int, length: int, device: torch.device) -> Int[Tensor, " window"]:
    """The token in each slot after `length` tokens, or a negative number for an empty slot."""
    slot = torch.arange(window, device=device)
    return length - 1 - (length - 1 - slot) % window


class WindowAttention(GroupedQueryAttention):
    """Grouped-query attention with rotary embeddings, within a window.

    window  number of tokens attended to, including the token itself; None for all previous tokens
    base    base of the rotary embedding
    attend  computes attention over a whole sequence
    """

    def __init__(
        self,
        model: int,
        heads: int,
        groups: int,
        *,
        window: int | None,
        dim: int | None = None,
        base: float = 10000.0,
        attend: Attend = window_attention,
    ) -> None:
        super().__init__(model, heads, groups, dim=dim)
        self.window = window
        self.base = base
        self.attend = attend

    def forward(
        self,
        x: Float[Tensor, "batch tokens model"],
        kv: Float[Tensor, "2 batch groups slots dim"] | None = None,
        first: int = 0,
    ) -> Float[Tensor, "batch tokens model"]:
        """Attend within `x`, or continue from a cache.

        kv     keys and values of the newest of the `first` previous tokens; updated with those of `x`
        first  number of tokens before `x`
        """
        q, k, v = self.project(x)
        single = torch.promote_types(x.dtype, torch.float32)
        places = first + torch.arange(x.shape[1], device=x.device, dtype=single)
        freqs_cis = phases(places, q.shape[-1], base=self.base)
        q, k = rotate(q, freqs_cis), rotate(k, freqs_cis)
        if kv is None:
            return self.output(merge_heads(self.attend(q, k, v, self.window or x.shape[1])))
        return self.output(merge_heads(self.roll(q, k, v, kv, first)))

    def roll(
        self,
        q: Float[Tensor, "batch heads tokens dim"],
        k: Float[Tensor, "batch groups tokens dim"],
        v: Float[Tensor, "batch groups tokens dim"],
        kv: Float[Tensor, "2 batch groups slots dim"],
        first: int,
    ) -> Float[Tensor, "batch heads tokens dim"]:
        """Attend to the cache and to the new tokens, then write the newest tokens into their slots."""
        tokens, slots = q.shape[2], kv.shape[3]
        new = first + torch.arange(tokens, device=q.device)
        if tokens == 1:  # its slot holds the only token that has left the window
            kv[:, :, :, first % slots] = torch.stack((k, v))[:, :, :, 0]
            filled = min(first + 1, slots)
            return grouped_attention(q, kv[0, :, :, :filled], kv[1, :, :, :filled])
        old = positions_in(slots, first, q.device)
        there = old >= 0
        keys = torch.cat((old[there], new))
        mask = keys <= new[:, None]
        if self.window:
            mask &= keys > new[:, None] - self.window
        both = torch.cat((kv[:, :, :, there], torch.stack((k, v))), 3)
        attended = grouped_attention(q, both[0], both[1], mask=mask)
        kept = min(tokens, slots)
        kv[:, :, :, new[-kept:] % slots] = torch.stack((k, v))[:, :, :, -kept:]
        return attended


class SwiGLU(nn.Module):
    """W2 (silu(W1 x) * W3 x); Shazeer 2020, arXiv 2002.05202. W1 is the gate, as in the released code."""

    def __init__(self, model: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(model, hidden, bias=False)
        self.w2 = nn.Linear(hidden, model, bias=False)
        self.w3 = nn.Linear(model, hidden, bias=False)

    def forward(self, x: Float[Tensor, "*batch model"]) -> Float[Tensor, "*batch model"]:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    def __init__(self, model: int, attention: WindowAttention, feed_forward: nn.Module, eps: float) -> None:
        super().__init__()
        self.attention = attention
        self.feed_forward = feed_forward
        self.norms = nn.ModuleList(RMSNorm(model, eps=eps) for _ in range(2))

    def forward(
        self,
        x: Float[Tensor, "batch tokens model"],
        kv: Float[Tensor, "2 batch groups slots dim"] | None = None,
        first: int = 0,
    ) -> Float[Tensor, "batch tokens model"]:
        x = x + self.attention(self.norms[0](x), kv, first)
        return x + self.feed_forward(self.norms[1](x))


class Mistral(nn.Module):
    """The Mistral decoder. The defaults are those of table 1.

    window        tokens attended to per layer, including the token itself; None for all previous tokens
    feed_forward  makes the second half of a block (default: SwiGLU with `hidden` units)
    attend        see `WindowAttention`
    """

    def __init__(
        self,
        vocab: int = 32_000,
        *,
        model: int = 4096,
        heads: int = 32,
        groups: int = 8,
        layers: int = 32,
        hidden: int = 14_336,
        window: int | None = 4096,
        base: float = 10000.0,
        eps: float = 1e-5,
        feed_forward: Callable[[], nn.Module] | None = None,
        attend: Attend = window_attention,
    ) -> None:
        super().__init__()
        make = feed_forward or (lambda: SwiGLU(model, hidden))
        self.embed = nn.Embedding(vocab, model)
        self.blocks = nn.ModuleList(
            Block(
                model,
                WindowAttention(model, heads, groups, window=window, base=base, attend=attend),
                make(),
                eps,
            )
            for _ in range(layers)
        )
        self.norm = RMSNorm(model, eps=eps)
        self.readout = nn.Linear(model, vocab, bias=False)
        self.window = window

    def forward(
        self, ids: Int[Tensor, "batch tokens"], cache: RollingCache | None = None
    ) -> Float[Tensor, "batch tokens vocab"]:
        """Logits of the next token after each of `ids`.

        cache  keys and values of the tokens before `ids`; those of `ids` are added
        """
        x = self.embed(ids)
        first = cache.length if cache else 0
        for layer, block in enumerate(self.blocks):
            x = block(x, cache.kv[layer] if cache else None, first)
        if cache:
            cache.length = first + ids.shape[1]
        return self.readout(self.norm(x))

    def empty_cache(self, batch: int, room: int | None = None) -> RollingCache:
        """An empty cache with one slot for each token of the window, or `room` slots without a window."""
        slots = self.window or room
        if slots is None:
            raise ValueError("without a window the cache holds all tokens: pass their number as `room`")
        layers, (_, model) = len(self.blocks), self.embed.weight.shape
        attention = self.blocks[0].attention
        shape = layers, 2, batch, attention.groups, slots, model // attention.heads
        return RollingCache(self.embed.weight.new_zeros(shape))
