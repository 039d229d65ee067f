"""What the paper counts, and blocks with reductions against naive ones of as much work."""

from functools import partial

import torch
from torch import nn

from readtrack.plugin import Bound, Break, Claim, Figure, Run, hookimpl

from ..alexnet import AlexNet
from ..alexnet.task import (
    BRIGHTNESS,
    CLASSES,
    Pictures,
    error_by_height,
    learnt_at_best_rates,
    measured,
    pictures,
)
from .model import TABLE_1, GoogLeNet, SmallNet, Widths, multiply_adds

NAIVE = Break("no reductions", "The blocks with reductions lose them and are the naive ones.")

FEWER = Claim(
    name="fewer parameters",
    sentence="GoogLeNet has 8.7 times fewer parameters than AlexNet, its auxiliary heads apart, where the "
    "paper says 12; AlexNet's hidden layers have nearly all of those.",
    paper=Figure("12 times fewer parameters than AlexNet", where="section 1", read="text"),
    rule=(
        Bound("parameters, AlexNet / GoogLeNet", ">=", 8.7),
        Bound("parameters, AlexNet / GoogLeNet", "<=", 8.8),
    ),
    kind="identity",
    deviations="Both as their papers' tables have them, with 5 × 5 filters where torchvision has 3 × 3.",
)

REDUCTIONS = Claim(
    name="reductions",
    sentence="With as many multiply-adds, blocks whose 1 × 1 layers cut the maps before large filters err "
    "less than naive blocks.",
    paper=Figure(
        "Reductions allow more units without a blow-up of the work; no number.",
        where="section 4",
        read="text",
    ),
    rule=(Bound("error, with reductions / naive", "<=", 0.9, direction=0.97, ratio=True),),
    control="the naive block (figure 2a) with fewer maps: as many multiply-adds, the same rates",
    control_reaches=(Bound("error, naive", "<=", 0.5),),
    guards=(
        Bound("multiply-adds, with reductions / naive", ">=", 0.95),
        Bound("multiply-adds, with reductions / naive", "<=", 1.05),
    ),
    breaks=(NAIVE,),
    chosen_on=(0, 1),
    deviations="Two blocks on pictures of 16 × 16 with five digits of 6 to 14 pixels, 2,000 to train on; "
    "Adam for 250 steps of 32; no auxiliary heads, no dropout.",
)

REDUCED = Widths(one=16, reduce3=16, three=24, reduce5=8, five=12, pool=12)
WITHOUT = Widths(one=7, reduce3=0, three=10, reduce5=0, five=5, pool=0)
ARMS = {"with reductions": REDUCED, "naive": WITHOUT}
RATES = (0.003, 0.009, 0.027)
DIGITS = (6.0, 14.0)


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(FEWER):
        count(run)
    if run.wants(REDUCTIONS):
        compare(run)


def size(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def count(run: Run) -> None:
    run.phase("setup")
    with torch.device("meta"):
        ours, theirs = GoogLeNet(), AlexNet()
    rows: list[list[object]] = [[name, *widths, size(ours.blocks[name])] for name, widths in TABLE_1.items()]
    columns = ["block", "1 × 1", "before 3 × 3", "3 × 3", "before 5 × 5", "5 × 5", "pool", "parameters"]
    run.table("table 1", columns, rows)
    own = size(ours) - size(ours.heads)
    run.metric("parameters", own, arm="GoogLeNet")
    run.metric("parameters", size(theirs), arm="AlexNet")
    run.metric("parameters", size(ours.heads), arm="both auxiliary heads")
    run.claim(FEWER, {"parameters, AlexNet / GoogLeNet": size(theirs) / own})


def compare(run: Run) -> None:
    """Both networks at each rate; the best is judged on pictures that chose nothing."""
    known = pictures(run, "train", run.pick(smoke=64, quick=2000, full=20_000), DIGITS)
    choose = pictures(run, "choose", run.pick(smoke=50, quick=1000, full=4000), DIGITS)
    judge, heights = measured(run, "judge", run.pick(smoke=50, quick=2000, full=8000), DIGITS)
    run.image(
        "pictures",
        (known.x[:40] + BRIGHTNESS).repeat_interleave(4, 2).repeat_interleave(4, 3),
        columns=10,
        caption="What is to be named: the digits 0 to 4, of 6 to 14 pixels.",
    )
    reduced = WITHOUT if run.without(NAIVE.name) else REDUCED
    arms = run.arms({**ARMS, "with reductions": reduced}, control="naive")

    rates = run.pick(smoke=RATES[1:2], quick=RATES, full=RATES)
    makes = {arm: partial(SmallNet, of, classes=CLASSES) for arm, of in arms.items()}
    steps = run.pick(smoke=3, quick=250, full=3000)
    best = learnt_at_best_rates(run, makes, rates, (known, choose, judge), steps=steps)
    for arm in arms:
        run.metric("multiply-adds", multiply_adds(best[arm].result.network), arm=arm)
        run.metric("parameters", size(best[arm].result.network), arm=arm)
    ours, naive = (best[arm].result for arm in ARMS)
    work = multiply_adds(ours.network) / multiply_adds(naive.network)
    values = {
        "error, with reductions / naive": max(ours.error, 1e-4) / max(naive.error, 1e-4),
        "error, naive": naive.error,
        "multiply-adds, with reductions / naive": work,
    }
    run.claim(REDUCTIONS, values, tuned=list(best.values()))
    error_by_height(run, {arm: found.result.network for arm, found in best.items()}, judge, heights)
    show(run, ours.network, judge)


@torch.no_grad()
def show(run: Run, network: SmallNet, judge: Pictures) -> None:
    """The maps of the first block's branches, the strongest of each, at the sight of six pictures."""
    x = judge.x[:6]
    maps = network.blocks[0](network.pool(network.stem(x).relu()))
    widths = network.blocks[0].widths
    sizes = [widths.one, widths.three, widths.five]
    branches = maps.split([*sizes, maps.shape[1] - sum(sizes)], 1)
    rows = [(x + BRIGHTNESS).repeat_interleave(4, 2).repeat_interleave(4, 3)]
    for branch in branches:
        strongest = branch.mean((2, 3)).argmax(1)
        chosen = branch[torch.arange(len(x)), strongest]
        chosen = chosen / chosen.amax((1, 2), keepdim=True).clamp(min=1e-6)
        large = chosen.repeat_interleave(8, 1).repeat_interleave(8, 2)
        rows.append(large[:, None].expand(-1, 3, -1, -1))
    caption = "Pictures; the strongest map of each branch of the first block: 1 × 1, 3 × 3, 5 × 5, pooled."
    run.image("branches", torch.cat(rows), columns=len(x), caption=caption)
