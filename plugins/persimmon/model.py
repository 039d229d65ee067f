"""Implements the released decoder: normalised queries and keys, half-rotary positions, squared ReLU."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..attention import merge_heads, scaled_dot_product_attention
from ..layernorm import LayerNorm
from ..rope import phases, rotate

Activation = Callable[[Tensor], Tensor]


def squared_relu(x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
    """The square of a ReLU (So and others 2021, arXiv 2109.08668)."""
    return F.relu(x).square()  # max(x, 0)²


class NormalisedAttention(nn.Module):
    """Causal self-attention with layer normalisation of queries and keys, shared by all heads.

    base        base of the rotation frequencies
    normalised  False for attention without these norms
    """

    def __init__(self, model: int, heads: int, *, base: float = 25000.0, normalised: bool = True) -> None:
        super().__init__()
        if model % heads or model // heads % 4:
            raise ValueError(f"a model of size {model} cannot have {heads} heads of a size divisible by 4")
        self.heads = heads
        self.base = base
        self.qkv = nn.Linear(
            model, 3 * model
        )  # rows are grouped by head: queries, keys and values of one head
        self.output = nn.Linear(model, model)
        dim = model // heads
        make = LayerNorm if normalised else lambda _: nn.Identity()
        self.query_norm, self.key_norm = make(dim), make(dim)

    def forward(self, x: Float[Tensor, "batch tokens model"]) -> Float[Tensor, "batch tokens model"]:
        q, k, v = self.project(x)
        return self.output(merge_heads(scaled_dot_product_attention(q, k, v, causal=True)))

    def project(
        self, x: Float[Tensor, "batch tokens model"]
    ) -> list[Float[Tensor, "batch heads tokens dim"]]:
        """Queries and keys, normalised and then rotated, and values."""
        q, k, v = self.qkv(x).unflatten(-1, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)
        return [self.turn(self.query_norm(q)), self.turn(self.key_norm(k)), v]

    def turn(self, x: Float[Tensor, "batch heads tokens dim"]) -> Float[Tensor, "batch heads tokens dim"]:
        """Rotate the first half of each head by the token's position, and keep the second half."""
        first, second = x.chunk(2, -1)
        single = torch.promote_types(x.dtype, torch.float32)
        places = torch.arange(x.shape[-2], device=x.device, dtype=single)
        return torch.cat((rotate(first, phases(places, first.shape[-1], base=self.base)), second), -1)


class Block(nn.Module):
    def __init__(
        self, attention: NormalisedAttention, model: int, hidden: int, activation: Activation
    ) -> None:
        super().__init__()
        self.attention = attention
        self.norms = nn.ModuleList(LayerNorm(model) for _ in range(2))
        self.up = nn.Linear(model, hidden)
        self.down = nn.Linear(hidden, model)
        self.activation = activation

    def forward(self, x: Float[Tensor, "batch tokens model"]) -> Float[Tensor, "batch tokens model"]:
        x = x + self.attention(self.norms[0](x))
        return x + self.down(self.hidden(x))

    def hidden(self, x: Float[Tensor, "batch tokens model"]) -> Float[Tensor, "batch tokens hidden"]:
        """Hidden activations: the input of the second matrix."""
        return self.activation(self.up(self.norms[1](x)))


class Persimmon(nn.Module):
    """The decoder, with the sizes of the released configuration by default. Readout and embedding are
    separate.

    activation  activation function of the feed-forward layers
    normalised  see `NormalisedAttention`
    std         standard deviation of the initial weights, from the released configuration
    """

    def __init__(
        self,
        vocab: int = 262_144,
        *,
        model: int = 4096,
        heads: int = 64,
        layers: int = 36,
        hidden: int = 16_384,
        base: float = 25000.0,
        activation: Activation = squared_relu,
        normalised: bool = True,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, model)
        self.blocks = nn.ModuleList(
            Block(
                NormalisedAttention(model, heads, base=base, normalised=normalised), model, hidden, activation
            )
            for _ in range(layers)
        )
        self.norm = LayerNorm(model)
        self.readout = nn.Linear(model, vocab, bias=False)
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Embedding) and not layer.weight.is_meta:
                nn.init.normal_(layer.weight, std=std)
            if isinstance(layer, nn.Linear) and layer.bias is not None and not layer.weight.is_meta:
                nn.init.zeros_(layer.bias)

    def forward(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens vocab"]:
        """Logits of the next token after each of `ids`."""
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.readout(self.norm(x))

    def loss(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, ""]:
        """Mean loss in nats per token, over all tokens but the first."""
        return F.cross_entropy(self(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def without_zeros(
    hidden: Float[Tensor, " hidden"], rows: Float[Tensor, "hidden model"]
) -> Float[Tensor, " model"]:
    """Compute hidden @ rows for one token, reading only the rows of nonzero activations."""
    (used,) = hidden.nonzero(as_tuple=True)
    return hidden[used] @ rows[used]
