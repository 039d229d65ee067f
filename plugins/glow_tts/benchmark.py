"""Times the alignment search, and synthesis compared with Tacotron 2, which generates frame by frame."""

import functools
from collections.abc import Iterator
from functools import partial

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from readtrack.plugin import Bench, Case, Claim, Cost, Figure, Speedup, Variant, hookimpl

from .. import tacotron2
from .model import GlowTTS, Sizes
from .search import Lengths, Scores, search

Path = Bool[Tensor, "batch symbols frames"]

FAST_SEARCH = Claim(
    name="time of the alignment search",
    seeded_as="the search is quick",
    sentence="The alignment search, which processes all symbols and batch rows of a frame at once, is at "
    "least three times as fast as a loop over cells in Python.",
    paper=Figure("The search takes less than 2 % of the training time.", where="section 3.2", read="text"),
    rule=(Speedup("search", over="cell by cell", threshold=3.0, axes={"frames": 400}),),
    deviations="The paper's released search is a compiled loop over cells. Such a loop in C took a tenth of "
    "our search's time.",
)

LENGTH = 2.5  # frames per symbol before rounding up
FRAMES = 3  # frames per symbol
HOP = 256 / 22_050  # seconds per frame (the authors' configs/base.json)


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


@functools.cache
def parallel(sizes: Sizes) -> GlowTTS:
    """A model with random weights whose symbols all last equally long. Only the time is measured."""
    model = GlowTTS(sizes).eval()
    nn.init.zeros_(model.encoder.durations_out.weight)
    nn.init.zeros_(model.encoder.durations_out.bias)
    return model


@functools.cache
def recurrent(sizes: tacotron2.Sizes) -> tacotron2.Tacotron2:
    """Tacotron 2 with random weights, which never stops by itself."""
    model = tacotron2.Tacotron2(sizes).eval()
    nn.init.constant_(model.decoder.gate_layer.bias, -100.0)
    return model


@torch.no_grad()
def all_frames(sizes: Sizes, text: Int[Tensor, " symbols"]) -> dict[str, float]:
    mel, _ = parallel(sizes).to(text.device).speak(text, length=LENGTH)
    return {"reached": float(mel.isfinite().all()), "seconds of speech": HOP * mel.shape[-1]}


@torch.no_grad()
def step_by_step(sizes: tacotron2.Sizes, text: Int[Tensor, " symbols"]) -> dict[str, float]:
    symbols, steps = torch.tensor([len(text)]), FRAMES * len(text) // sizes.group
    mel = recurrent(sizes).to(text.device).speak(text.unsqueeze(0), symbols, steps)[0].refined
    return {"reached": float(mel.isfinite().all()), "seconds of speech": HOP * mel.shape[-1]}


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
    tiny = Sizes(9, 4, hidden=8, ffn=8, layers=1, prenet=1, durations=8, channels=8, blocks=2, depth=1)
    small = partial(tacotron2.Sizes, 9, 4, 8, 2, 5, 7, 4, 3, 5, postnet=8, refinements=2)
    ours, theirs, count = bench.pick(
        smoke=(tiny, small, 10), quick=(Sizes(), tacotron2.Sizes, 20), full=(Sizes(), tacotron2.Sizes, 100)
    )
    ways = (
        ("Tacotron 2", "naive", partial(step_by_step, theirs(group=1))),
        ("Tacotron 2, five frames per step", "strong", partial(step_by_step, theirs(group=5))),
        ("Glow-TTS", "paper", partial(all_frames, ours)),
    )
    yield Case(
        name="speech",
        axes={"symbols": count, "frames": FRAMES * count},
        inputs=lambda g: (torch.randint(9, (count,), generator=g),),
        variants=tuple(Variant(name=name, role=role, call=call) for name, role, call in ways),
        cost={"until": None},
    )
