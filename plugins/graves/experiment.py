"""Words of a made-up hand, written by a network that sees the text through a window, or as a mean."""

from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from readtrack.data.strokes import LETTERS, Strokes, write
from readtrack.plugin import Bound, Break, Claim, Figure, Run, hookimpl

from .model import Points, Writer

NO_MOVE = Break("no window", "The mean of the letters is shown all the time.")

WINDOW = Claim(
    name="the window finds its way",
    sentence="A network that moves a window over the text predicts the pen better than one that is shown the "
    "letters without their places.",
    paper=Figure("Realistic cursive in many styles; no figure for the window", read="abstract"),
    rule=(Bound("nats a word saved over the mean of the letters", ">=", 0.9, direction=0.0),),
    control="the same network, which is shown the mean of the word's letters at every point",
    control_reaches=(Bound("nats a point, mean of the letters", "<=", 0.5),),
    breaks=(NO_MOVE,),
    chosen_on=(0,),
    deviations="Words of three of six made-up letters, hands and tremor made by rule, a letter about eleven "
    "points; two layers of 48 and 8 components in the place of three of 400 and 20, 5 Gaussians in the "
    "window, which starts at a tenth of a letter a point; 120 steps of 32. To know the order of three "
    "letters is worth at most ln 6 = 1.8 nats a word, half of which is asked for.",
)

UNIT = 0.4  # length of an offset, in heights of an "e": 1 for the network
GAUSSIANS = 5


@hookimpl
def experiment(run: Run) -> None:
    count = run.pick(smoke=8, quick=500, full=4000)
    train_on, choose, judge = (
        inked(run, name, size)
        for name, size in (
            ("words", count),
            ("words to choose by", count // 4),
            ("words to judge by", count // 4),
        )
    )
    texts = {
        "window": "mean" if run.without(NO_MOVE.name) else "window",
        "mean of the letters": "mean",
    }
    rates = run.pick(smoke=(0.01,), quick=(0.015, 0.03, 0.06), full=(0.003, 0.01, 0.03, 0.1))
    best = {
        arm: run.sweep(
            arm, rates, partial(train, run, arm, text, train_on, choose, judge), score="validation nats"
        )
        for arm, text in run.arms(texts, control="mean of the letters").items()
    }
    run.headline("nats a point while learning")
    nats = {arm: found.result.nats for arm, found in best.items()}
    points = judge.lengths.double().mean().item()
    for arm, value in nats.items():
        run.metric("nats a point", value, arm=arm)
    run.claim(
        WINDOW,
        {
            "nats a word saved over the mean of the letters": points
            * (nats["mean of the letters"] - nats["window"]),
            "nats a point, mean of the letters": nats["mean of the letters"],
        },
        tuned=list(best.values()),
    )
    if not run.null and not run.broken:
        show(run, best["window"].result.writer)


class Trained(NamedTuple):
    nats: float
    writer: Writer


def inked(run: Run, name: str, count: int) -> Strokes:
    draw = run.generator(name)
    return write(torch.randint(len(LETTERS), (count, 3), generator=draw), draw, spacing=UNIT)


def given(run: Run, strokes: Strokes, rows: Tensor | slice) -> tuple[Points, Tensor, Tensor]:
    lengths = strokes.lengths[rows]
    points = strokes.points[rows, : int(lengths.max())].clone()
    points[..., :2] /= UNIT
    return points.to(run.device, run.dtype), strokes.words[rows].to(run.device), lengths.to(run.device)


def train(
    run: Run, arm: str, text: str, strokes: Strokes, choose: Strokes, judge: Strokes, rate: float
) -> tuple[float, Trained]:
    """Nats a point of words to choose by, and what came of it."""
    torch.manual_seed(run.seed)
    writer = Writer(len(LETTERS), hidden=48, components=8, gaussians=GAUSSIANS, text=text)
    with torch.no_grad():
        writer.window.bias[-GAUSSIANS:] += 0.7  # from exp(-3) of a letter a point to exp(-2.3)
    writer = writer.to(run.device, run.dtype)
    optimizer = torch.optim.Adam(writer.parameters(), lr=rate)
    steps = run.pick(smoke=2, quick=120, full=2000)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    batches, name = run.generator("batches"), f"{arm}, rate {rate:g}"
    run.phase("train")
    for step in run.steps(steps, name):
        rows = torch.randint(len(strokes.words), (32,), generator=batches)
        loss = writer.nats(*given(run, strokes, rows))
        run.descend(loss, optimizer, step=step, metric="nats a point while learning", arm=name, clip=1.0)
        schedule.step()
    run.phase("evaluate")
    with torch.no_grad():
        chosen_by, found = (writer.nats(*given(run, part, slice(None))).item() for part in (choose, judge))
    return chosen_by, Trained(found, writer)


WORDS = ("tel", "non", "lie")
BIASES = (0.0, 1.0, 3.0)


def show(run: Run, writer: Writer) -> None:
    """The words by rule and in the hand that was learned, neater and neater, and where the window stood."""
    words = torch.tensor([[LETTERS.index(letter) for letter in word] for word in WORDS])
    ruled = write(words, run.generator("by rule"), spacing=UNIT)
    columns = [given(run, ruled, slice(None))[0]]
    time = run.pick(smoke=6, quick=44, full=44)
    for bias in BIASES:
        points, weights = writer.write(words.to(run.device), time, run.generator("writing"), bias=bias)
        columns.append(points)
    pages = [page(column[row].float().cpu()) for row in range(len(words)) for column in columns]
    run.image(
        "written",
        torch.stack(pages)[:, None],
        columns=len(columns),
        caption='"tel", "non" and "lie", a row each: by rule, and written by the network, which is told the '
        "word, with a bias of 0, 1 and 3. It is not told to stop.",
    )
    seen = weights[0].T.float().cpu()
    shades = 1 - seen / seen.max().clamp_min(1e-6)
    run.image(
        "window",
        shades.repeat_interleave(12, 0).repeat_interleave(4, 1),
        caption="Where the window stood while it wrote, with a bias of 3: a row a letter of the first word, "
        "time to the right.",
    )


def page(
    points: Float[Tensor, "time 3"], *, height: int = 64, width: int = 120
) -> Float[Tensor, "height width"]:
    """Ink where the pen was down; it is up between the end of a stroke and the next point."""
    ink = torch.ones(height, width)
    at = points[:, :2].cumsum(0) * UNIT * 20 + torch.tensor([12.0, 14.0])
    for i in range(1, len(at)):
        if points[i - 1, 2] < 0.5:
            longest = int((at[i] - at[i - 1]).abs().max())
            for part in torch.linspace(0, 1, 2 * longest + 2).tolist():
                x, y = (at[i - 1] + part * (at[i] - at[i - 1])).round().long().tolist()
                if 0 <= x < width and 0 <= height - 1 - y < height:
                    ink[height - 1 - y, x] = 0
    return ink
