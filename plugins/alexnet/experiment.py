"""Dropout on few pictures, ReLU against tanh, and what the paper says of its network's size."""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from readtrack.plugin import AtLeast, Best, Bound, Break, Claim, Figure, Run, hookimpl

from .model import AlexNet, SmallNet, neurons
from .task import BRIGHTNESS, CLASSES, Pictures, error, pictures, train

NO_DROPOUT = Break("no dropout", "No unit is left out.")
TANH = Break("tanh everywhere", "The network that is called ReLU's has tanh too.")

SIZES = Claim(
    name="sizes",
    sentence="The layers have the paper's numbers of neurons from the second on; the first has 290,400.",
    paper=Figure(
        "60 million parameters; 253,440, 186,624, 64,896, 64,896, 43,264, 4096, 4096 and 1000 neurons. The "
        "first number is not that of any whole map: 55 × 55 × 96 is 290,400.",
        where="abstract and figure 2",
        read="text",
    ),
    rule=(
        Bound("layers from the second on with other numbers of neurons", "==", 0),
        Bound("parameters", "==", 60_965_224),
    ),
    kind="identity",
    deviations="Images of 227 × 227: with the 224 of the text the first layer would not fit.",
)

OVERFITS = Claim(
    name="dropout",
    sentence="Leaving out half of the hidden units lowers the error on new pictures of a network that fits "
    "its training set.",
    paper=Figure(
        "Without dropout the network overfits substantially; dropout roughly doubles the steps.",
        where="section 4.2",
        read="text",
    ),
    rule=(Bound("error on new pictures, with dropout / without", "<=", 0.93, direction=1.0, ratio=True),),
    control="the same network without dropout, at its best rate of the same three",
    control_reaches=(
        Bound("accuracy on the training set, without dropout", ">=", 0.97),
        Bound("error on new pictures, without dropout", "<=", 0.6),
    ),
    breaks=(NO_DROPOUT,),
    chosen_on=(0, 1, 2),
    deviations="200 pictures of 16 × 16 with five digits; three convolutions, two hidden layers of 256; 600 "
    "steps of 32 with dropout as without: with 400 steps of 300 pictures up to 27 % of the training set were "
    "still wrong with it, which the paper's doubled steps foretell. Now it is at most 5 %.",
)

SOONER = Claim(
    name="ReLU",
    sentence="With ReLU a network reaches an error of 25 % on its training set several times sooner than "
    "with tanh.",
    paper=Figure("Six times sooner, four layers on CIFAR-10", where="figure 1", read="text"),
    rule=(Bound("steps to 25 %, tanh / ReLU", ">=", 2.0, direction=1.0, ratio=True),),
    control="the same network with tanh, at the quickest of the same rates",
    breaks=(TANH,),
    chosen_on=(0, 1),
    deviations="Pictures of 16 × 16 with five digits, 2,000 of them; four layers that start with variances "
    "of 2 / fan-in, not from 0.01. The error is the mean of the last 20 batches.",
)

RATES = (0.01, 0.03, 0.09)
WINDOW, GOAL = 20, 0.25


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZES):
        count(run)
    if run.wants(OVERFITS):
        overfit(run)
    if run.wants(SOONER):
        race(run)
        run.headline("training error, each at its best rate")


def count(run: Run) -> None:
    run.phase("setup")
    with torch.device("meta"):
        network = AlexNet()
    printed = [253_440, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]
    ours, names = neurons(network, 227), [name for name, _ in layers(network)]
    weights = [sum(w.numel() for w in layer.parameters()) for _, layer in layers(network)]
    rows = [list(row) for row in zip(names, ours, printed, weights, strict=True)]
    run.table("AlexNet", ["layer", "neurons", "the paper's", "parameters"], rows)
    differ = sum(a != b for a, b in zip(ours[1:], printed[1:], strict=True))
    values = {"layers from the second on with other numbers of neurons": differ, "parameters": sum(weights)}
    run.claim(SIZES, values)


def layers(network: AlexNet) -> list[tuple[str, nn.Module]]:
    return [(n, m) for n, m in network.named_children() if isinstance(m, nn.Conv2d | nn.Linear)]


def sgd(rate: float, network: nn.Module) -> torch.optim.Optimizer:
    """Section 5: momentum 0.9 and a weight decay of 0.0005."""
    return torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)


class Fit(NamedTuple):
    training: float
    new: float


def overfit(run: Run) -> None:
    """A network with and without dropout, on few pictures."""
    known = pictures(run, "train", run.pick(smoke=32, quick=200, full=200))
    choose, judge = (
        pictures(run, part, run.pick(smoke=50, quick=1500, full=4000)) for part in ("choose", "judge")
    )
    share = 0.0 if run.without(NO_DROPOUT.name) else 0.5
    arms = run.arms({"with dropout": share, "without dropout": 0.0}, control="without dropout")

    def fit(arm: str, rate: float) -> tuple[float, Fit]:
        make = partial(SmallNet, classes=CLASSES, hidden=(256, 256), dropout=arms[arm])
        steps = run.pick(smoke=3, quick=600, full=2000)
        network = train(run, arm, make, known, partial(sgd, rate), steps=steps, label=f" at rate {rate:g}")
        return error(network, choose), Fit(error(network, known), error(network, judge))

    rates = run.pick(smoke=RATES[1:2], quick=RATES, full=RATES)
    best: dict[str, Best[Fit]] = {}
    for arm in arms:
        best[arm] = run.sweep(arm, rates, partial(fit, arm), score="error on choose")
        run.metric("error on the training set", best[arm].result.training, arm=arm)
        run.metric("error on new pictures", best[arm].result.new, arm=arm)
    with_it, without = best["with dropout"].result, best["without dropout"].result
    values = {
        "error on new pictures, with dropout / without": with_it.new / without.new,
        "error on new pictures, without dropout": without.new,
        "accuracy on the training set, without dropout": 1 - without.training,
    }
    run.claim(OVERFITS, values, tuned=list(best.values()))


def race(run: Run) -> None:
    """Steps until 25 % of the last batches are named wrongly."""
    known = pictures(run, "train", run.pick(smoke=100, quick=2000, full=10_000))
    show(run, known)
    ours = nn.Tanh if run.without(TANH.name) else nn.ReLU
    arms = run.arms({"ReLU": ours, "tanh": nn.Tanh}, control="tanh")
    rates = run.pick(smoke=RATES[1:2], quick=RATES, full=RATES)
    best = {
        arm: run.sweep(arm, rates, partial(to_25_percent, run, arm, activation, known), score="steps to 25 %")
        for arm, activation in arms.items()
    }
    for arm, found in best.items():
        for step, value in enumerate(found.result[1]):
            if step % 5 == 0:
                run.metric("training error, each at its best rate", value, step=step + WINDOW, arm=arm)
    relu, tanh = (best[arm].result[0] for arm in ("ReLU", "tanh"))
    ratio = number(tanh) / number(relu)
    # Where tanh never arrived, the ratio is at least that.
    never = isinstance(tanh, AtLeast) and not isinstance(relu, AtLeast)
    value = AtLeast(ratio) if never else ratio
    run.claim(SOONER, {"steps to 25 %, tanh / ReLU": value}, tuned=list(best.values()))


def number(steps: float | AtLeast) -> float:
    return steps.value if isinstance(steps, AtLeast) else steps


def to_25_percent(
    run: Run, arm: str, activation: type[nn.Module], known: Pictures, rate: float
) -> tuple[float, tuple[float | AtLeast, list[float]]]:
    """The steps, to choose by; the steps again, and the error over the last batches after each step."""
    torch.manual_seed(run.seed)
    network = SmallNet(classes=CLASSES, activation=activation).to(run.device, run.dtype)
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9)  # figure 1: no regularisation
    batches, wrong, errors = run.generator("batches"), [], []
    limit = run.pick(smoke=WINDOW + 1, quick=400, full=2000)
    run.phase("train")
    for step in run.steps(limit, f"{arm}, rate {rate:g}"):
        rows = torch.randint(len(known.x), (32,), generator=batches)
        scores, y = network(known.x[rows]), known.y[rows]
        run.descend(
            F.cross_entropy(scores, y), optimizer, step=step, metric=f"race, loss at rate {rate:g}", arm=arm
        )
        wrong.append((scores.argmax(1) != y).float().mean().item())
        if len(wrong) >= WINDOW:
            errors.append(sum(wrong[-WINDOW:]) / WINDOW)
            if errors[-1] <= GOAL:
                return step + 1, (float(step + 1), errors)
    return float(limit), (AtLeast(float(limit)), errors)


def show(run: Run, known: Pictures) -> None:
    sheet = (known.x[:40] + BRIGHTNESS).repeat_interleave(4, 2).repeat_interleave(4, 3)
    run.image("pictures", sheet, columns=10, caption="What is to be named: the digits 0 to 4, in 16 × 16.")
