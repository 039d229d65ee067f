"""The mixture-of-experts layer, computed without a loop over tokens, and the decoder that uses it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..sliding_window import Mistral


class Router(nn.Module):
    """Section 2.1: the gate. Experts that are not chosen have weight zero."""

    def __init__(self, model: int, experts: int, active: int) -> None:
        super().__init__()
        self.active = active
        self.gate = nn.Linear(model, experts, bias=False)

    def forward(
        self, x: Float[Tensor, "tokens model"]
    ) -> tuple[Float[Tensor, "tokens active"], Int[Tensor, "tokens active"], Float[Tensor, "tokens experts"]]:
        """The weights and indices of the chosen experts, and the logits of all experts."""
        logits = self.gate(x)  # G(x) = softmax(top_k(x W_g))
        chosen = logits.topk(self.active, -1)
        return chosen.values.softmax(-1), chosen.indices, logits


class SparseExperts(nn.Module):
    """Section 2.1: each token passes through `active` SwiGLU experts, and their outputs are summed with the
    router's weights.

    Tokens are sorted by expert, so each expert runs one matrix multiplication on all its tokens.

    model, hidden  size of a token vector, and hidden size of an expert
    """

    def __init__(self, model: int, hidden: int, *, experts: int = 8, active: int = 2) -> None:
        super().__init__()
        if not 0 < active <= experts:
            raise ValueError(f"{active} active experts of {experts}")
        self.router = Router(model, experts, active)
        # Indexed by expert. w1 (gate) and w3 map to the hidden size, and w2 maps back.
        self.w1 = nn.Parameter(torch.empty(experts, hidden, model))
        self.w2 = nn.Parameter(torch.empty(experts, model, hidden))
        self.w3 = nn.Parameter(torch.empty(experts, hidden, model))
        for weight in (self.w1, self.w2, self.w3):
            bound = weight.shape[-1] ** -0.5  # as in nn.Linear
            nn.init.uniform_(weight, -bound, bound)

    def forward(self, x: Float[Tensor, "*batch model"]) -> Float[Tensor, "*batch model"]:
        tokens = x.reshape(-1, x.shape[-1])
        weights, chosen, _ = self.router(tokens)
        return self.dispatch(tokens, weights, chosen).view(x.shape)

    def dispatch(
        self,
        tokens: Float[Tensor, "tokens model"],
        weights: Float[Tensor, "tokens active"],
        chosen: Int[Tensor, "tokens active"],
    ) -> Float[Tensor, "tokens model"]:
        if len(tokens) == 1:  # Nothing to sort. In decoding, sorting would take as long as an expert.
            found = torch.stack([self.expert(expert, tokens[0]) for expert in chosen[0].tolist()])
            return weights.to(found.dtype) @ found
        order = chosen.flatten().argsort()  # positions in (tokens, active), grouped by expert
        counts = chosen.flatten().bincount(minlength=len(self.w1)).tolist()
        token = order // chosen.shape[1]
        parts = tokens[token].split(counts)
        used = [expert for expert, count in enumerate(counts) if count]
        found = torch.cat([self.expert(expert, parts[expert]) for expert in used])
        weighted = found * weights.flatten()[order, None].to(found.dtype)
        return torch.zeros_like(tokens).index_add(0, token, weighted.to(tokens.dtype))

    def expert(self, index: int, x: Float[Tensor, "*some model"]) -> Float[Tensor, "*some model"]:
        hidden = F.silu(F.linear(x, self.w1[index])) * F.linear(x, self.w3[index])
        return F.linear(hidden, self.w2[index])


def loads(
    chosen: Int[Tensor, "tokens active"], logits: Float[Tensor, "tokens experts"]
) -> Float[Tensor, " experts"]:
    """The fraction of routing choices that falls on each expert."""
    return chosen.flatten().bincount(minlength=logits.shape[-1]) / chosen.numel()


def balance_loss(
    chosen: Int[Tensor, "tokens active"], logits: Float[Tensor, "tokens experts"]
) -> Float[Tensor, ""]:
    """Fedus et al. 2021 (arXiv 2101.03961), equations 4 to 6. Even routing gives a loss of `active`.

    The report does not mention this loss, but the configuration released with the weights contains one.
    """
    # experts × Σ over experts of (choices per token) × (mean probability).
    experts, active = logits.shape[-1], chosen.shape[-1]
    return experts * active * (loads(chosen, logits) * logits.softmax(-1).mean(0)).sum()


def Mixtral(
    vocab: int = 32_000,
    *,
    experts: int = 8,
    active: int = 2,
    model: int = 4096,
    hidden: int = 14_336,
    **settings: Any,
) -> Mistral:
    """Mistral 7B's decoder with a mixture of experts in each feed-forward layer and no window (table 1).

    settings  other arguments of `Mistral`: heads, groups, layers, window, base
    """
    feed_forward: Callable[[], nn.Module] = partial(
        SparseExperts, model, hidden, experts=experts, active=active
    )
    defaults = {"window": None, "base": 1e6}
    return Mistral(vocab, model=model, hidden=hidden, feed_forward=feed_forward, **{**defaults, **settings})


def active_parameters(network: Mistral) -> int:
    """Parameters used per token: all except those of the experts that are not chosen.

    Counts the whole embedding, as in the report's 13 billion.
    """
    total = sum(weight.numel() for weight in network.parameters())
    for layer in network.modules():
        if isinstance(layer, SparseExperts):
            experts = len(layer.w1)
            idle = experts - layer.router.active
            total -= idle * sum(w.numel() for w in (layer.w1, layer.w2, layer.w3)) // experts
    return total
