"""Times the alignment search cell by cell, and column by column in torch and in numpy."""

from collections.abc import Iterator
from functools import partial

import torch
from jaxtyping import Bool
from torch import Tensor

from readtrack.plugin import Bench, Case, Claim, Cost, Figure, Speedup, Variant, hookimpl

from .search import Lengths, Scores, search

Path = Bool[Tensor, "batch symbols frames"]

FAST_SEARCH = Claim(
    name="time of the alignment search",
    seeded_as="the search is quick",
    sentence="The alignment search, which processes all symbols and batch rows of a frame at once, is at "
    "least three times as fast as a loop over cells.",
    paper=Figure("The search takes less than 2 % of the training time.", where="section 3.2", read="text"),
    rule=(Speedup("search", over="cell by cell", threshold=3.0, axes={"frames": 400}),),
    deviations="The loop over cells is in Python. The paper's released search is compiled.",
)


def cell_by_cell(scores: Scores, symbols: Lengths, frames: Lengths) -> Path:
    """Algorithm 1 as written, with loops over Python lists."""
    paths = torch.zeros(scores.shape, dtype=torch.bool)
    for row, (count, length) in enumerate(zip(symbols.tolist(), frames.tolist(), strict=True)):
        values = scores[row, :count, :length].tolist()
        best = [[-float("inf")] * length for _ in range(count)]
        best[0][0] = values[0][0]
        for frame in range(1, length):
            for symbol in range(min(count, frame + 1)):
                before = best[symbol - 1][frame - 1] if symbol else -float("inf")
                best[symbol][frame] = max(best[symbol][frame - 1], before) + values[symbol][frame]
        symbol = count - 1
        for frame in range(length - 1, -1, -1):
            paths[row, symbol, frame] = True
            if frame and symbol and best[symbol - 1][frame - 1] > best[symbol][frame - 1]:
                symbol -= 1
    return paths.to(scores.device)


@torch.compiler.disable
def with_torch(scores: Scores, symbols: Lengths, frames: Lengths) -> Path:
    """Runs the search column by column on the scores' device. All rows backtrack together."""
    values, (batch, count, length) = scores.float().permute(2, 0, 1), scores.shape
    symbols, frames = symbols.to(scores.device), frames.to(scores.device)
    best = values.new_full((batch, count + 1), -torch.inf)
    best[:, 1] = values[0, :, 0]
    moves = torch.zeros(length, batch, count, dtype=torch.bool, device=scores.device)
    for frame in range(1, length):
        torch.gt(best[:, :-1], best[:, 1:], out=moves[frame])
        best[:, 1:] = torch.maximum(best[:, 1:], best[:, :-1]) + values[frame]
    symbol, owner = symbols - 1, torch.zeros(length, batch, dtype=torch.long, device=scores.device)
    inside = torch.arange(length, device=scores.device).unsqueeze(1) < frames
    for frame in range(length - 1, -1, -1):
        owner[frame] = symbol
        symbol = symbol - (moves[frame].gather(1, symbol.unsqueeze(1)).squeeze(1) & inside[frame]).long()
    paths = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    return paths.scatter_(1, owner.T.unsqueeze(1), inside.T.unsqueeze(1))


def inputs(
    batch: int, symbols: int, frames: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Integer scores, whose sums do not depend on the order of addition. The last row is shorter."""
    scores = torch.randint(-900, 0, (batch, symbols, frames), generator=generator).float()
    counts, ends = torch.full((batch,), symbols), torch.full((batch,), frames)
    counts[-1], ends[-1] = symbols - symbols // 3, frames - frames // 4
    return scores, counts, ends


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    sizes = bench.pick(
        smoke=((2, 3, 7),), quick=((8, 30, 200), (8, 60, 400)), full=((8, 60, 400), (32, 150, 800))
    )
    for batch, symbols, frames in sizes:
        cells = batch * symbols * frames
        yield Case(
            name="search",
            axes={"frames": frames, "symbols": symbols, "batch": batch},
            inputs=partial(inputs, batch, symbols, frames),
            variants=(
                Variant(name="cell by cell", role="naive", call=cell_by_cell),
                Variant(name="by columns in torch", role="strong", call=with_torch),
                Variant(name="by columns", role="paper", call=search),
            ),
            cost={"forward": Cost(flops=2 * cells, bytes=cells * (bench.dtype.itemsize + 1))},
        )
