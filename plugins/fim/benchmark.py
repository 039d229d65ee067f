"""Times the reordering of texts with one sort, with slices of tensors, and with Python lists."""

from collections.abc import Iterator

import torch
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import EOT, MID, NAMES, PRE, SUF, fill_in_the_middle


def one_by_one(texts: Tensor, cuts: Tensor, spm: Tensor) -> Tensor:
    """Reorders texts as Python lists, as a data loader might."""
    rows = []
    for text, (first, second), turned in zip(texts.tolist(), cuts.tolist(), spm.tolist(), strict=True):
        prefix, middle, suffix = text[:first], text[first:second], text[second:]
        if turned:
            rows.append([PRE, SUF, *suffix, MID, *prefix, *middle, EOT])
        else:
            rows.append([PRE, *prefix, SUF, *suffix, MID, *middle, EOT])
    return torch.tensor(rows, device=texts.device)


def by_slices(texts: Tensor, cuts: Tensor, spm: Tensor) -> Tensor:
    """Reorders texts by slicing tensors and concatenating the slices of each text."""
    pre, suf, mid, eot = torch.arange(NAMES, device=texts.device).split(1)
    rows = []
    for text, (first, second), turned in zip(texts, cuts.tolist(), spm.tolist(), strict=True):
        prefix, middle, suffix = text[:first], text[first:second], text[second:]
        parts = (pre, suf, suffix, mid, prefix) if turned else (pre, prefix, suf, suffix, mid)
        rows.append(torch.cat((*parts, middle, eot)))
    return torch.stack(rows)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    for batch, length in bench.pick(smoke=((3, 7),), quick=((64, 512), (64, 2048)), full=((256, 2048),)):

        def inputs(g: torch.Generator, batch: int = batch, length: int = length) -> tuple[Tensor, ...]:
            texts = torch.randint(NAMES, 50_000, (batch, length), generator=g)
            cuts = torch.randint(length + 1, (batch, 2), generator=g).sort(1).values
            return texts, cuts, torch.rand(batch, generator=g) < 0.5

        yield Case(
            name="reordering",
            axes={"length": length},
            inputs=inputs,
            variants=(
                Variant(name="Python lists", role="naive", call=one_by_one),
                Variant(name="concatenated slices", role="strong", call=by_slices),
                Variant(name="one sort", role="paper", call=fill_in_the_middle),
            ),
            cost={"forward": Cost(flops=0, bytes=8 * batch * (2 * length + NAMES + 2))},
            fresh=True,
        )
