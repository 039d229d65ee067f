"""Times all correlations of neurons and explanations: in a loop, standardised, or as one matrix product."""

from collections.abc import Iterator

import torch
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import correlations


def one_by_one(activations: Tensor, predicates: Tensor) -> Tensor:
    single = torch.promote_types(activations.dtype, torch.float32)
    a, b = activations.to(single), predicates.to(single)
    rows = [torch.corrcoef(torch.cat((column[None], b.T)))[0, 1:] for column in a.unbind(1)]
    return torch.stack(rows).to(activations.dtype)


def standardised(activations: Tensor, predicates: Tensor) -> Tensor:
    single = torch.promote_types(activations.dtype, torch.float32)
    a, b = ((t - t.mean(0)) / t.std(0, correction=0) for t in (activations.to(single), predicates.to(single)))
    return (a.T @ b / len(a)).to(activations.dtype)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    sizes = bench.pick(
        smoke=((20, 3, 4),), quick=((2000, 64, 200), (8000, 256, 400)), full=((50_000, 1000, 1000),)
    )
    for tokens, neurons, count in sizes:
        moved = tokens * (neurons + count) + neurons * count
        yield Case(
            name="score all explanations",
            axes={"tokens": tokens, "neurons": neurons, "predicates": count},
            inputs=lambda generator, tokens=tokens, neurons=neurons, count=count: (
                torch.randn(tokens, neurons, generator=generator) + 1,
                torch.rand(tokens, count, generator=generator).lt(0.4).float(),
            ),
            variants=(
                Variant(name="one by one", role="naive", call=one_by_one),
                Variant(name="standardised", role="strong", call=standardised),
                Variant(name="one product", role="paper", call=correlations),
            ),
            cost={"forward": Cost(flops=2 * tokens * neurons * count, bytes=moved * bench.dtype.itemsize)},
        )
