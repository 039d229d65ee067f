"""Implements section 2's decoder: parallel layers, one key-value head, rotary positions, SwiGLU."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..attention import merge_heads, split_heads
from ..gqa import grouped_attention
from ..rope import phases, rotate


@dataclass
class Cache:
    """The rotated keys and the values of all tokens read so far, with room for more tokens.

    kv      keys and values of each layer; entries beyond `length` are unused
    length  number of tokens read so far
    """

    kv: Float[Tensor, "layers 2 batch groups room dim"]
    length: int = 0


def attend(
    q: Float[Tensor, "batch tokens queries"],
    k: Float[Tensor, "batch tokens keys"],
    v: Float[Tensor, "batch tokens keys"],
    dim: int,
    kv: Float[Tensor, "2 batch groups room dim"] | None,
    first: int,
) -> Float[Tensor, "batch tokens queries"]:
    """Causal attention with rotary positions. Heads are concatenated along the last axis.

    kv  keys and values of the `first` previous tokens; the new tokens' keys and values are written into it
    """
    heads, groups, tokens = q.shape[-1] // dim, k.shape[-1] // dim, q.shape[1]
    single = torch.promote_types(q.dtype, torch.float32)
    freqs_cis = phases(first + torch.arange(tokens, device=q.device, dtype=single), dim)
    q, k = rotate(split_heads(q, heads), freqs_cis), rotate(split_heads(k, groups), freqs_cis)
    v = split_heads(v, groups)
    if kv is not None:
        kv[:, :, :, first : first + tokens] = torch.stack((k, v))
        k, v = kv[:, :, :, : first + tokens]
    return merge_heads(grouped_attention(q, k, v, causal=True))


class ParallelBlock(nn.Module):
    """Attention and a SwiGLU layer in parallel, with one norm for both (section 2).

    `read` computes q, k, v, gate and up in one matrix multiplication. `write` projects both outputs in
    another.
    """

    def __init__(self, model: int, heads: int, dim: int, groups: int, hidden: int) -> None:
        super().__init__()
        self.dim = dim
        self.widths = heads * dim, groups * dim, groups * dim, hidden, hidden
        self.norm = nn.LayerNorm(model, bias=False)
        self.read = nn.Linear(model, sum(self.widths), bias=False)
        self.write = nn.Linear(heads * dim + hidden, model, bias=False)

    def start_halves(self) -> None:
        """Initialise the two halves of `write` as separate matrices, each with its own fan-in (section 5)."""
        for half in self.write.weight.split((self.widths[0], self.widths[-1]), 1):
            nn.init.normal_(half, std=half.shape[1] ** -0.5)

    def forward(
        self,
        x: Float[Tensor, "batch tokens model"],
        kv: Float[Tensor, "2 batch groups room dim"] | None = None,
        first: int = 0,
    ) -> Float[Tensor, "batch tokens model"]:
        q, k, v, gate, up = self.read(self.norm(x)).split(self.widths, -1)
        attended = attend(q, k, v, self.dim, kv, first)
        # y = x + MLP(LayerNorm(x)) + Attention(LayerNorm(x))
        return x + self.write(torch.cat((attended, F.silu(gate) * up), -1))


PALM_8B = {"model": 4096, "heads": 16, "layers": 32}
PALM_62B = {"model": 8192, "heads": 32, "layers": 64}
PALM_540B = {"model": 18_432, "heads": 48, "layers": 118}


class PaLM(nn.Module):
    """The decoder. The defaults give the smallest model of table 1.

    vocab   size of the vocabulary; the embedding matrix is also the readout
    dim     size of a head; heads * dim may differ from the model size (table 1 has 256 in every model)
    groups  number of key-value heads
    hidden  hidden size of SwiGLU (default: 4 * model, with three matrices)
    block   constructor of a layer
    """

    def __init__(
        self,
        vocab: int = 256_000,
        *,
        model: int = 4096,
        heads: int = 16,
        layers: int = 32,
        dim: int = 256,
        groups: int = 1,
        hidden: int | None = None,
        block: Callable[[int, int, int, int, int], nn.Module] = ParallelBlock,
    ) -> None:
        super().__init__()
        hidden = 4 * model if hidden is None else hidden
        self.embed = nn.Embedding(vocab, model)  # N(0, 1), as in section 5
        self.blocks = nn.ModuleList(block(model, heads, dim, groups, hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(model, bias=False)
        self.shape = layers, 2, groups, dim
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        for block in self.blocks:
            if isinstance(block, ParallelBlock):
                block.start_halves()

    def forward(
        self, ids: Int[Tensor, "batch tokens"], cache: Cache | None = None
    ) -> Float[Tensor, "batch tokens vocab"]:
        """Logits of the next token after each of `ids`. The ids continue the tokens in `cache`, if given.

        Logits are scaled by 1/√model, because the embedding has unit variance, which is too large for a
        readout.
        """
        x = self.embed(ids)
        first = cache.length if cache else 0
        for layer, block in enumerate(self.blocks):
            x = block(x, cache.kv[layer] if cache else None, first)
        if cache:
            cache.length = first + ids.shape[1]
        return F.linear(self.norm(x), self.embed.weight) / math.sqrt(x.shape[-1])

    def loss(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, ""]:
        """Mean loss in nats per token (except the first), plus section 5's loss that keeps log Z near 0."""
        logits = self(ids[:, :-1])
        nats = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        # 10⁻⁴ log² Z
        return nats + 1e-4 * logits.logsumexp(-1).square().mean()

    def empty_cache(self, batch: int, room: int) -> Cache:
        layers, two, groups, dim = self.shape
        return Cache(self.embed.weight.new_zeros(layers, two, batch, groups, room, dim))
