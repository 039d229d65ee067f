"""A question about rows, on images of sizes seen in training and of others, with newlines and without."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl

from .model import Fuyu, layout

NO_NEWLINES = Break("no newlines", "No arm gets newline tokens.")

SIZE = Claim(
    name="the released size",
    sentence="This folder's defaults have the parameters of the released model: Persimmon's and one matrix "
    "for patches.",
    paper=Figure("9.41 billion parameters", where="the released files", read="secondary"),
    rule=(
        Bound("parameters", "==", 9_408_238_592),
        Bound("parameters that are not the decoder's", "==", 11_063_296),
    ),
    kind="identity",
)

NEWLINES = Claim(
    name="newlines",
    sentence="With a newline after each row a decoder says in which column something is, on images of "
    "sizes that it was never trained on as well as on those that it was; without, it does not.",
    paper=Figure(
        "A newline tells the model when a line has broken; with it existing position embeddings do for "
        "different image sizes. No number.",
        where="the post, model architecture",
        read="text",
    ),
    rule=(
        Bound("right at unseen sizes, newlines - none", ">=", 0.15, direction=0.05),
        Bound("right with newlines, seen sizes of as many columns - unseen", "<=", 0.1, direction=0.2),
    ),
    control="the same decoder without newlines, at its best of the same rates",
    control_reaches=(Bound("right at seen sizes, none", ">=", 0.36),),
    breaks=(NO_NEWLINES,),
    chosen_on=(0, 1),
    deviations="Two blocks of width 32, images of 2 to 5 patches either way, each of 2 × 2 pixels of noise, "
    "one of them marked, and one question: in which column? Three sizes are kept out of training: 3 × 5, "
    "5 × 3 and 4 × 4.",
)

PATCH, MOST = 2, 5  # pixels of a patch's side; rows or columns
ASK, NEWLINE, FIRST = 0, 1, 2  # the tokens; from FIRST on the columns' names
VOCAB = FIRST + MOST
UNSEEN = ((3, 5), (5, 3), (4, 4))
SIZES = tuple((rows, columns) for rows in range(2, MOST + 1) for columns in range(2, MOST + 1))
SEEN = tuple(size for size in SIZES if size not in UNSEEN)
ALIKE = tuple(size for size in SEEN if size[1] > 2)  # of as many columns as those unseen: as hard to guess
RATES = (0.002, 0.004, 0.008, 0.016)

Make = Callable[[], Fuyu]


class Questions(NamedTuple):
    images: Float[Tensor, "batch 1 height width"]
    answers: Int64[Tensor, " batch"]  # the column, from 0


def draw(count: int, rows: int, columns: int, generator: torch.Generator) -> Questions:
    """Noise with one marked patch, anywhere."""
    row, column = (torch.randint(most, (count,), generator=generator) for most in (rows, columns))
    marks = torch.zeros(count, rows, columns)
    marks[torch.arange(count), row, column] = 1.0
    cross = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    images = torch.kron(marks, cross)
    return Questions((images + 0.3 * torch.randn(images.shape, generator=generator))[:, None], column)


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZE):
        count(run)
    if run.wants(NEWLINES):
        compare(run)
    run.headline("right over steps at unseen sizes")


def count(run: Run) -> None:
    run.phase("setup")
    with torch.device("meta"):
        network = Fuyu()
    size, look = (sum(w.numel() for w in part.parameters()) for part in (network, network.look))
    rows = [
        [f"{width} × {height}", *layout(height, width)]
        for width, height in ((300, 300), (1280, 720), (1920, 1080))
    ]
    run.table("tokens of an image", ["pixels", "rows", "columns", "tokens"], rows)
    run.claim(SIZE, {"parameters": size, "parameters that are not the decoder's": look})


class Learnt(NamedTuple):
    """The share of right answers by size of image."""

    right: Mapping[tuple[int, int], float]

    def mean(self, sizes: tuple[tuple[int, int], ...]) -> float:
        return sum(self.right[size] for size in sizes) / len(sizes)


def compare(run: Run) -> None:
    make = partial(Fuyu, VOCAB, patch=PATCH, channels=1, model=32, heads=2, layers=2, hidden=64, std=0.1)
    with_newlines = None if run.without(NO_NEWLINES.name) else NEWLINE
    arms = run.arms(
        {"newlines": partial(make, newline=with_newlines), "none": partial(make, newline=None)},
        control="none",
    )
    rates = run.pick(smoke=RATES[1:2], quick=RATES, full=RATES)
    best: dict[str, Best[Learnt]] = {}
    for arm, build in arms.items():
        best[arm] = run.sweep(arm, rates, partial(train, run, arm, build), score="wrong at sizes seen")
        for name, sizes in (("seen", SEEN), ("unseen", UNSEEN)):
            run.metric(f"right at {name} sizes", best[arm].result.mean(sizes), arm=arm)
    ours, none = (best[arm].result for arm in ("newlines", "none"))
    values = {
        "right at unseen sizes, newlines - none": ours.mean(UNSEEN) - none.mean(UNSEEN),
        "right with newlines, seen sizes of as many columns - unseen": ours.mean(ALIKE) - ours.mean(UNSEEN),
        "right at seen sizes, none": none.mean(SEEN),
    }
    run.claim(NEWLINES, values, tuned=list(best.values()))
    show(run, {arm: found.result for arm, found in best.items()})


def train(run: Run, arm: str, make: Make, rate: float) -> tuple[float, Learnt]:
    """Every batch has a size of its own; the loss is that of the answer. The score is of sizes seen."""
    torch.manual_seed(run.seed)
    network = make().to(run.device, run.dtype)
    steps = run.pick(smoke=2, quick=180, full=2000)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1, (s + 1) / 20) * (1 - s / steps))
    batches = run.generator("batches")
    run.phase("train")
    for step in run.steps(steps, f"{arm}, rate {rate:g}"):
        size = SEEN[torch.randint(len(SEEN), (), generator=batches)]
        asked = draw(32, *size, batches)
        loss = F.cross_entropy(scores(run, network, asked), asked.answers.to(run.device))
        run.descend(loss, optimizer, step=step, metric=f"loss at rate {rate:g}", arm=arm, clip=1.0)
        schedule.step()
        if (step + 1) % 60 == 0:
            found = right(run, network, UNSEEN, "choose").values()
            mean = sum(found) / len(found)
            run.metric("right over steps at unseen sizes", mean, step=step + 1, arm=f"{arm}, rate {rate:g}")
    run.phase("evaluate")
    chosen_by = right(run, network, SEEN, "choose")
    return 1 - sum(chosen_by.values()) / len(SEEN), Learnt(right(run, network, SIZES, "judge"))


def scores(run: Run, network: Fuyu, asked: Questions) -> Float[Tensor, "batch most"]:
    """Of the columns, after the image and the question."""
    ids = torch.full((len(asked.answers), 1), ASK, device=run.device)
    return network(ids, asked.images.to(run.device, run.dtype))[:, -1, FIRST:]


@torch.no_grad()
def right(
    run: Run, network: Fuyu, sizes: tuple[tuple[int, int], ...], part: str
) -> dict[tuple[int, int], float]:
    """The share of right answers, by size."""
    found = {}
    for rows, columns in sizes:
        asked = draw(
            run.pick(smoke=10, quick=200, full=1000), rows, columns, run.generator(f"{part} {rows} {columns}")
        )
        named = scores(run, network, asked).argmax(1).cpu()
        found[rows, columns] = (named == asked.answers).float().mean().item()
    return found


def show(run: Run, learnt: Mapping[str, Learnt]) -> None:
    """The share of right answers by rows (down) and columns (across), and some images."""
    maps = [
        torch.tensor(
            [[found.right[rows, columns] for columns in range(2, MOST + 1)] for rows in range(2, MOST + 1)]
        )
        for found in learnt.values()
    ]
    large = torch.stack(maps)[:, None].repeat_interleave(24, 2).repeat_interleave(24, 3)
    for rows, columns in UNSEEN:  # a black dot in the middle of the sizes that were kept out
        large[
            :, :, 24 * (rows - 2) + 9 : 24 * (rows - 2) + 15, 24 * (columns - 2) + 9 : 24 * (columns - 2) + 15
        ] = 0
    caption = f"Right answers by rows and columns, {' and '.join(learnt)}; white is all. Dots: unseen sizes."
    run.image("right by size", large, columns=len(maps), caption=caption)
    header = ["rows", "columns", "unseen", *learnt]
    table = [
        [*size, "yes" if size in UNSEEN else "", *(round(found.right[size], 3) for found in learnt.values())]
        for size in SIZES
    ]
    run.table("right by size", header, table)
    asked = draw(8, 4, 5, run.generator("pictures"))
    pictures = (asked.images / 4 + 0.5).clamp(0, 1).repeat_interleave(12, 2).repeat_interleave(12, 3)
    columns = ", ".join(str(answer + 1) for answer in asked.answers.tolist())
    run.image("questions", pictures, columns=4, caption=f"The mark is in column {columns}.")
