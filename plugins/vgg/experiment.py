"""What the paper counts, and pairs of 3 × 3 filters against the 5 × 5 filters that see as much."""

from functools import partial

import torch
from torch import nn

from readtrack.plugin import Bound, Break, Claim, Figure, Run, hookimpl

from ..alexnet.task import (
    BRIGHTNESS,
    CLASSES,
    Pictures,
    error_by_height,
    learnt_at_best_rates,
    measured,
    pictures,
)
from .model import TABLE_1, VGG, Stages, seen, weights_of

ONE_LAYER = Break("one layer", "The deep network has one 5 × 5 layer a stage, like its control.")

SIZES = Claim(
    name="sizes",
    sentence="The networks have the parameters of the paper's table, in millions, and a 7 × 7 layer has 81 % "
    "more weights than three 3 × 3 layers, which see as much.",
    paper=Figure(
        "133 million for A, A-LRN and B, 134 for C, 138 for D, 144 for E; 49 C² against 27 C² weights, 81 % "
        "more.",
        where="table 2 and section 2.3",
        read="table",
    ),
    rule=(
        Bound("columns of the table with other millions", "==", 0),
        Bound("weights, one 7 × 7 layer / three of 3 × 3, %", "==", 181),
        Bound("side that three 3 × 3 layers see", "==", 7),
    ),
    kind="identity",
)

SMALL_FILTERS = Claim(
    name="small filters",
    sentence="A network with two 3 × 3 layers a stage errs less than the shallow one with a 5 × 5 layer a "
    "stage, which sees as much.",
    paper=Figure(
        "The shallow network's top-1 error is 7 % higher than B's, on centre crops.",
        where="section 4.1",
        read="text",
    ),
    rule=(Bound("error, two of 3 × 3 / one of 5 × 5", "<=", 0.8, direction=0.97, ratio=True),),
    control="one 5 × 5 layer a stage, at its best of the same rates",
    control_reaches=(Bound("error, one of 5 × 5", "<=", 0.25),),
    breaks=(ONE_LAYER,),
    chosen_on=(0, 1),
    deviations="Three stages of 16, 32 and 48 maps on pictures of 16 × 16 with five digits, Adam for 400 "
    "steps of 32; 2,000 pictures to train on, 2,000 to judge by. Both have about as many parameters, because "
    "the first layer of a stage has fewer inputs.",
)

ARMS = {"two of 3 × 3": (3, 3), "one of 5 × 5": (5,)}
RATES = (0.003, 0.006, 0.012, 0.024)
PRINTED = {"A": 133, "A-LRN": 133, "B": 133, "C": 134, "D": 138, "E": 144}


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZES):
        count(run)
    if run.wants(SMALL_FILTERS):
        compare(run)


def count(run: Run) -> None:
    run.phase("setup")
    rows: list[list[object]] = []
    with torch.device("meta"):
        for name, printed in PRINTED.items():
            network = VGG(name)
            parameters = sum(weight.numel() for weight in network.parameters())
            depth = sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in network.modules())
            rows.append([name, depth, parameters, round(parameters / 1e6), printed, TABLE_1[name]])
    columns = ["network", "layers", "parameters", "millions", "the paper's", "convolutions"]
    run.table("table 2", columns, rows)
    values = {
        "columns of the table with other millions": sum(row[3] != row[4] for row in rows),
        "weights, one 7 × 7 layer / three of 3 × 3, %": round(
            100 * weights_of((7,), 256) / weights_of((3, 3, 3), 256)
        ),
        "side that three 3 × 3 layers see": seen((3, 3, 3)),
    }
    run.claim(SIZES, values)


def compare(run: Run) -> None:
    """Both networks at each rate; the best is judged on pictures that chose nothing."""
    known = pictures(run, "train", run.pick(smoke=64, quick=2000, full=20_000))
    choose = pictures(run, "choose", run.pick(smoke=50, quick=1000, full=4000))
    judge, heights = measured(run, "judge", run.pick(smoke=50, quick=2000, full=8000))
    deep = ARMS["one of 5 × 5" if run.without(ONE_LAYER.name) else "two of 3 × 3"]
    arms = run.arms({**ARMS, "two of 3 × 3": deep}, control="one of 5 × 5")

    rates = run.pick(smoke=RATES[1:2], quick=RATES, full=RATES)
    makes = {arm: partial(Stages, of, classes=CLASSES) for arm, of in arms.items()}
    steps = run.pick(smoke=3, quick=400, full=3000)
    best = learnt_at_best_rates(run, makes, rates, (known, choose, judge), steps=steps)
    for arm in arms:
        parameters = sum(weight.numel() for weight in best[arm].result.network.parameters())
        run.metric("parameters", parameters, arm=arm)
    two, one = (best[arm].result.error for arm in ARMS)
    values = {
        "error, two of 3 × 3 / one of 5 × 5": max(two, 1e-4) / max(one, 1e-4),
        "error, one of 5 × 5": one,
    }
    run.claim(SMALL_FILTERS, values, tuned=list(best.values()))
    networks = {arm: found.result.network for arm, found in best.items()}
    error_by_height(run, networks, judge, heights)
    show(run, networks, judge)


@torch.no_grad()
def show(run: Run, networks: dict[str, nn.Module], judge: Pictures) -> None:
    """Pictures that one of the two names wrongly, and how."""
    x, y = judge.x[:500], judge.y[:500]
    found = {arm: network(x).argmax(1) for arm, network in networks.items()}
    for arm, named in found.items():
        wrong = (named != y).nonzero().flatten()[:20]
        rows = [[int(y[i]), *(int(other[i]) for other in found.values())] for i in wrong.tolist()]
        if rows:
            sheet = (x[wrong] + BRIGHTNESS).repeat_interleave(4, 2).repeat_interleave(4, 3)
            caption = f"Named wrongly by {arm}: {', '.join(f'{r[0]}' for r in rows)}, row by row."
            run.image(f"errors, {arm}", sheet, columns=10, caption=caption)
            run.table(f"errors, {arm}", ["digit", *(f"{name} says" for name in found)], rows)
