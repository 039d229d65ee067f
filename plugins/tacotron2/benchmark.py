"""Times attention over decoder steps, with keys computed in each step or once, or with merged filters."""

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import LocationSensitiveAttention

Weights = Mapping[str, Tensor]
Queries = Float[Tensor, "steps batch query"]
Memory = Float[Tensor, "batch symbols memory"]
Contexts = Float[Tensor, "steps batch memory"]


class Steps(nn.Module):
    """The decoder's attention on its own, for given queries."""

    def __init__(self, query: int, memory: int, dim: int, filters: int, taps: int) -> None:
        super().__init__()
        self.attention = LocationSensitiveAttention(query, memory, dim, filters, taps)

    def forward(self, queries: Queries, memory: Memory) -> Contexts:
        keys = self.attention.memory_layer(memory)
        mask = torch.ones(memory.shape[:2], dtype=torch.bool, device=memory.device)
        past, contexts = memory.new_zeros(len(memory), 2, memory.shape[1]), []
        for query in queries:
            weights = self.attention(query, keys, past, mask)
            past = torch.stack((weights, past[:, 1] + weights), 1)
            contexts.append((weights.unsqueeze(1) @ memory).squeeze(1))
        return torch.stack(contexts)


def keys_each_step(w: Weights, queries: Queries, memory: Memory) -> Contexts:
    """The equation as written, with everything recomputed in every step."""
    kernel, dense = (
        w["attention.location_layer.location_conv.weight"],
        "attention.location_layer.location_dense",
    )
    previous = total = memory.new_zeros(memory.shape[:2])
    contexts = []
    for query in queries:
        f = F.conv1d(torch.stack((previous, total), 1), kernel, padding=kernel.shape[2] // 2)
        hidden = (
            F.linear(query, w["attention.query_layer.weight"]).unsqueeze(1)
            + F.linear(memory, w["attention.memory_layer.weight"])
            + F.linear(f.mT, w[f"{dense}.weight"])
        )
        previous = F.linear(hidden.tanh(), w["attention.v.weight"]).squeeze(-1).softmax(-1)
        total = total + previous
        contexts.append((previous.unsqueeze(1) @ memory).squeeze(1))
    return torch.stack(contexts)


def one_convolution(w: Weights, queries: Queries, memory: Memory) -> Contexts:
    """Project all keys and queries at once, and merge the filters and their projection into one kernel."""
    kernel = w["attention.location_layer.location_conv.weight"]
    dense = w["attention.location_layer.location_dense.weight"]
    folded, half = torch.einsum("df,fct->dct", dense, kernel), kernel.shape[2] // 2
    keys = F.linear(memory, w["attention.memory_layer.weight"]).mT
    asked = F.linear(queries, w["attention.query_layer.weight"]).unsqueeze(-1)
    v = w["attention.v.weight"]
    previous = total = memory.new_zeros(memory.shape[:2])
    contexts = []
    for query in asked:
        f = F.conv1d(torch.stack((previous, total), 1), folded, padding=half)
        previous = (v @ (f + keys + query).tanh()).squeeze(1).softmax(-1)
        total = total + previous
        contexts.append((previous.unsqueeze(1) @ memory).squeeze(1))
    return torch.stack(contexts)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, symbols, steps = bench.pick(smoke=(2, 5, 3), quick=(4, 100, 12), full=(16, 150, 40))
    query, memory, dim, filters, taps = bench.pick(
        smoke=(6, 5, 4, 3, 5), quick=(1024, 512, 128, 32, 31), full=(1024, 512, 128, 32, 31)
    )

    def make() -> Steps:
        return Steps(query, memory, dim, filters, taps)

    once = batch * symbols * memory * dim + steps * batch * query * dim
    each = batch * symbols * (2 * filters * taps + filters * dim + dim + memory)
    weights = dim * (query + memory + filters + 1) + 2 * filters * taps
    moved = weights + batch * symbols * memory + steps * batch * (query + memory)
    yield Case.of_module(
        make,
        name="attention steps",
        axes={"symbols": symbols, "steps": steps, "batch": batch},
        inputs=lambda g: (
            torch.randn(steps, batch, query, generator=g),
            torch.randn(batch, symbols, memory, generator=g),
        ),
        variants=(
            Variant(name="keys at each step", role="naive", call=keys_each_step),
            Variant(name="one convolution", role="strong", call=one_convolution),
            Variant.of_module(make, name="keys once", role="paper"),
        ),
        cost=Cost.products(2 * (once + steps * each), moved * bench.dtype.itemsize),
    )
