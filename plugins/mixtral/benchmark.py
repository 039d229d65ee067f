"""Times a mixture-of-experts layer on one token, as in decoding, and on many tokens, as in training."""

from collections.abc import Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import SparseExperts

Weights = Mapping[str, Tensor]


def route(weights: Weights, x: Tensor, active: int) -> tuple[Tensor, Tensor]:
    chosen = (x @ weights["router.gate.weight"].T).topk(active, -1)
    return chosen.values.softmax(-1), chosen.indices


def token_by_token(weights: Weights, x: Tensor, *, active: int) -> Tensor:
    """The equation of section 2.1, one token at a time."""
    rows = []
    for token, gates, chosen in zip(x, *route(weights, x, active), strict=True):
        row = torch.zeros_like(token)
        for gate, expert in zip(gates, chosen.tolist(), strict=True):
            hidden = F.silu(weights["w1"][expert] @ token) * (weights["w3"][expert] @ token)
            row = row + gate * (weights["w2"][expert] @ hidden)
        rows.append(row)
    return torch.stack(rows)


def expert_by_expert(weights: Weights, x: Tensor, *, active: int) -> Tensor:
    """As in `transformers`: loop over the experts and apply each to the tokens routed to it."""
    gates, chosen = route(weights, x, active)
    result = torch.zeros_like(x)
    for expert in chosen.unique().tolist():
        token, place = torch.where(chosen == expert)
        part = x[token]
        hidden = F.silu(F.linear(part, weights["w1"][expert])) * F.linear(part, weights["w3"][expert])
        found = F.linear(hidden, weights["w2"][expert]) * gates[token, place, None]
        result = result.index_add(0, token, found)
    return result


def side_by_side(weights: Weights, x: Tensor) -> tuple[Weights, Tensor]:
    """Concatenate the experts' matrices into those of one dense layer."""
    w1, w2, w3 = (weights[name] for name in ("w1", "w2", "w3"))
    dense = {"w1": w1.flatten(0, 1), "w2": w2.transpose(0, 1).flatten(1), "w3": w3.flatten(0, 1)}
    return {**weights, **dense}, x


def all_experts(weights: Weights, x: Tensor, *, active: int) -> Tensor:
    """A dense layer with the same number of parameters, which computes every expert for every token.

    Outputs of experts that were not chosen are multiplied by zero. `side_by_side` has concatenated the
    matrices, so nothing is copied.
    """
    gates, chosen = route(weights, x, active)
    experts = len(weights["router.gate.weight"])
    share = torch.zeros(len(x), experts, dtype=gates.dtype, device=x.device).scatter(1, chosen, gates)
    inner = F.silu(F.linear(x, weights["w1"])) * F.linear(x, weights["w3"])
    chosen_only = inner.unflatten(1, (experts, -1)) * share[:, :, None]
    return F.linear(chosen_only.flatten(1), weights["w2"])


def gathered(weights: Weights, x: Tensor, *, active: int) -> Tensor:
    """Gather the chosen experts' matrices for one batched matrix multiplication, which suits few tokens."""
    gates, chosen = route(weights, x, active)
    w1, w2, w3 = (weights[name][chosen] for name in ("w1", "w2", "w3"))  # (tokens, active, rows, columns)
    hidden = F.silu(torch.einsum("tahm,tm->tah", w1, x)) * torch.einsum("tahm,tm->tah", w3, x)
    return torch.einsum("tamh,tah,ta->tm", w2, hidden, gates)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    model, hidden = bench.pick(smoke=(8, 12), quick=(256, 896), full=(1024, 3584))
    experts, active, itemsize = 8, 2, bench.dtype.itemsize
    for tokens in bench.pick(smoke=(5,), quick=(1, 16, 256), full=(1, 64, 1024)):
        flops = 2 * tokens * (3 * active * hidden * model + experts * model)
        touched = min(active * tokens, experts)
        moved = (3 * touched * hidden * model + experts * model + 2 * tokens * model) * itemsize
        few = (Variant(name="matrices gathered", role="strong", call=partial(gathered, active=active)),)
        # If every expert gets tokens, but only a few, the strong baseline is one dense matrix multiplication.
        of_dense = "strong" if experts <= active * tokens <= 8 * experts else "naive"
        yield Case.of_module(
            partial(SparseExperts, model, hidden, experts=experts, active=active),
            name="a layer",
            axes={"tokens": tokens},
            inputs=lambda g, tokens=tokens: (torch.randn(tokens, model, generator=g),),
            variants=(
                Variant(name="token by token", role="naive", call=partial(token_by_token, active=active)),
                Variant(
                    name="dense, as many parameters",
                    role=of_dense,
                    call=partial(all_experts, active=active),
                    prepare=side_by_side,
                ),
                Variant(
                    name="expert by expert", role="strong", call=partial(expert_by_expert, active=active)
                ),
                *(few if tokens == 1 else ()),
                Variant.of_module(
                    partial(SparseExperts, model, hidden, experts=experts, active=active),
                    name="sorted by expert",
                    role="paper",
                ),
            ),
            cost=Cost.products(flops, moved),
        )
