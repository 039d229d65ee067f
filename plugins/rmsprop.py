"""RMSProp: divide each gradient by the recent size of its own coordinate.

Tieleman and Hinton 2012, "Neural Networks for Machine Learning", lecture 6e (slides 26 to 31 of lecture 6).

The problem. Gradients of different weights differ by orders of magnitude, because of where the weights sit in
a network or how its inputs are scaled, and one global step is too long for some and too short for others.
Rprop uses only the signs, with a step size for each weight, but fails on mini-batches: nine gradients of +0.1
and one of −0.9 should cancel, and their signs do not.

The idea. Divide by a number that changes little between neighbouring mini-batches: the root of a running mean
of the coordinate's own squared gradients. Large batches then behave as in Rprop, and in small ones gradients
still average. It was never published as a paper, and half of Adam is this.

This file. The running mean square, which later papers import, and the optimiser. The experiment trains
classifiers of digits whose pixels have been scaled at random, and shows Rprop on mini-batches.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.rmsprop import rmsprop as torch_rmsprop

from readtrack.plugin import (
    Bench,
    Bound,
    Break,
    Case,
    Claim,
    Draw,
    Exercise,
    Figure,
    Run,
    Try,
    hookimpl,
)

from .sgd import SGD, Optimizer, Vector
from .sgd.benchmark import step_cases, until_case
from .sgd.trials import RATES, Make, Problem, Tuned, digits, pixel_scales, tune


def accumulate(squares: Vector, g: Vector, *, decay: float) -> None:
    """MeanSquare(w, t) = decay · MeanSquare(w, t − 1) + (1 − decay) g², in place."""
    squares.lerp_(g * g, 1 - decay)


class RMSProp(Optimizer):
    """The lecture keeps 0.9 of the old mean square; `eps` guards weights that had no gradient yet."""

    memories = ("squares",)

    def __init__(self, weights: Iterable[Any], lr: float, decay: float = 0.9, eps: float = 1e-8) -> None:
        super().__init__(weights, lr=lr, decay=decay, eps=eps)

    @staticmethod
    def update(w: Vector, g: Vector, squares: Vector, *, t: int, lr: float, decay: float, eps: float) -> None:
        """w ← w − lr g / √MeanSquare, in place."""
        accumulate(squares, g, decay=decay)
        w -= lr * g / (squares.sqrt() + eps)


@hookimpl
def implementation() -> type[Optimizer]:
    return RMSProp


NO_SCALING = Break("no scaling", "RMSProp's division by the root of the mean square.")
NO_MEMORY = Break(
    "no memory", "The running mean: each gradient is divided by its own size, so that signs remain."
)

SCALES = Claim(
    name="badly scaled inputs",
    sentence="Where inputs differ in scale, dividing each gradient by its recent size trains further in the "
    "same number of steps than any single global step.",
    paper=Figure(
        "No figure: gradients of different weights vary widely, which makes one global rate hard to choose.",
        where="lecture 6e",
        read="secondary",
    ),
    rule=(
        Bound("loss of RMSProp / loss of Nesterov momentum", "<=", 0.85, direction=1.0, ratio=True),
        Bound("loss of RMSProp / loss of SGD", "<=", 0.85, direction=1.0, ratio=True),
    ),
    control="SGD with and without Nesterov momentum; every arm takes the best of eight rates",
    control_reaches=(Bound("loss of SGD", "<=", 1.6),),
    breaks=(NO_SCALING,),
    shortcuts=("loss of RMSProp / loss of AdaGrad",),
    chosen_on=(0, 1, 2),
    deviations="A linear classifier of digits, each pixel multiplied by 10^u with u uniform in [−1.5, 1.5]; "
    "200 batches of 64; the loss is that of the last 50. The lecture does not mention AdaGrad (2011).",
)

MINI_BATCHES = Claim(
    name="Rprop for mini-batches",
    sentence="Rprop, which trains on whole batches, fails on mini-batches; RMSProp trains on them, and the "
    "running mean is what it needs for that.",
    paper=Figure(
        "No figure: nine gradients of +0.1 and one of −0.9 should leave a weight where it is, and Rprop does "
        "not; the number that is divided by should be about the same for neighbouring mini-batches.",
        where="lecture 6e",
        read="secondary",
    ),
    rule=(
        Bound("loss of RMSProp / loss of Rprop", "<=", 0.3, direction=1.0, ratio=True),
        Bound("loss of RMSProp / loss of signs", "<=", 0.85, direction=1.0, ratio=True),
    ),
    control="Rprop, and signs with one step for all weights, each at the best of eight rates",
    control_reaches=(Bound("loss of Rprop on whole batches", "<=", 0.1),),
    breaks=(NO_MEMORY,),
    chosen_on=(0, 1, 2),
    deviations="The classifier above; 200 batches of 16. Rprop is torch's, with its factors of 1.2 and 0.5.",
)

signs = partial(RMSProp, decay=0.0)


def unscaled(weights: Iterable[Any], lr: float) -> Optimizer:
    """RMSProp with an eps beside which no mean square counts: plain steps of `lr`."""
    return RMSProp(weights, 1e6 * lr, eps=1e6)


@hookimpl
def experiment(run: Run) -> None:
    run.headline("training loss, batches of 64")
    run.phase("train")
    if run.wants(SCALES):
        compare_on_scales(run)
    if run.wants(MINI_BATCHES):
        compare_on_mini_batches(run)


def compare_on_scales(run: Run) -> None:
    arms = run.arms(
        {
            "SGD": SGD,
            "Nesterov momentum": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
            "AdaGrad": torch.optim.Adagrad,
            "RMSProp": unscaled if run.without("no scaling") else RMSProp,
        },
        control="Nesterov momentum",
    )
    problem = badly_scaled(run, 64)
    found = {arm: tuned(run, problem, arm, make) for arm, make in arms.items()}
    values = {
        f"loss of RMSProp / loss of {arm}": found["RMSProp"].loss / found[arm].loss
        for arm in ("Nesterov momentum", "SGD", "AdaGrad")
    }
    values["loss of SGD"] = found["SGD"].loss
    run.claim(SCALES, values, tuned=[one.best for one in found.values()])


def compare_on_mini_batches(run: Run) -> None:
    arms = run.arms(
        {
            "Rprop": torch.optim.Rprop,
            "signs": signs,
            "RMSProp": signs if run.without("no memory") else RMSProp,
        },
        control="signs",
    )
    problem = badly_scaled(run, 16)
    found = {arm: tuned(run, problem, arm, make) for arm, make in arms.items()}
    whole = tuned(run, badly_scaled(run, 0), "Rprop", torch.optim.Rprop)
    values = {
        f"loss of RMSProp / loss of {arm}": found["RMSProp"].loss / found[arm].loss
        for arm in ("Rprop", "signs")
    }
    values["loss of Rprop on whole batches"] = whole.loss
    run.claim(MINI_BATCHES, values, tuned=[one.best for one in found.values()])


def badly_scaled(run: Run, batch: int) -> Problem:
    """Digits with pixels of random scales, for a linear classifier that begins at zero."""
    images, labels = digits(run).train
    scales = pixel_scales(run.generator("scales")).to(images)
    return Problem(f"batches of {batch or len(images)}", linear, images * scales, labels, batch)


def linear() -> nn.Module:
    model = nn.Linear(64, 10)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def tuned(run: Run, problem: Problem, arm: str, make: Make) -> Tuned:
    steps, rates = run.pick(smoke=(4, RATES[2:3]), quick=(200, RATES), full=(1000, RATES))
    return tune(run, problem, arm, make, steps=steps, rates=rates)


def one_tensor_at_a_time(weights: list[Tensor], gradients: list[Tensor], squares: list[Tensor]) -> None:
    for w, g, v in zip(weights, gradients, squares, strict=True):
        v.copy_(0.9 * v + 0.1 * g**2)
        w -= 0.01 * g / (v.sqrt() + 1e-8)


def torch_foreach(
    weights: list[Tensor], gradients: list[Tensor], squares: list[Tensor], steps: list[Tensor]
) -> None:
    settings = {"lr": 0.01, "alpha": 0.9, "eps": 1e-8, "weight_decay": 0, "momentum": 0, "centered": False}
    torch_rmsprop(weights, gradients, squares, [], [], steps, foreach=True, **settings)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    yield from step_cases(
        bench,
        "RMSProp step",
        naive=one_tensor_at_a_time,
        strong=torch_foreach,
        ours=partial(RMSProp.update, t=10, lr=0.01, decay=0.9, eps=1e-8),
        memories=1,
        flops=8,
        traffic=5,
        strong_name="torch foreach",
    )
    torchs = partial(torch.optim.RMSprop, alpha=0.9, foreach=True)
    yield until_case(
        bench,
        {
            ("SGD", "naive"): (partial(SGD, lr=0.1), 64),
            ("torch RMSprop", "strong"): (partial(torchs, lr=0.01), 64),
            ("RMSProp", "paper"): (partial(RMSProp, lr=0.01), 64),
        },
        target=bench.pick(smoke=2.0, quick=0.5, full=0.1),
        limit=5000,
        spread=1.5,
    )


# What to write oneself.
def of_squares(draw: Draw) -> Iterator[Try]:
    yield Try("two weights", draw.between(0, 1, 2), draw(2), decay=0.9)
    yield Try("half is kept", draw.between(0, 1, 3), draw(3), decay=0.5)


def of_steps(draw: Draw) -> Iterator[Try]:
    settings = {"lr": 0.1, "decay": 0.9, "eps": 1e-3}
    yield Try("the first step", draw(2), draw(2), 0 * draw(2), t=1, **settings)
    yield Try("a later step", draw(3), draw(3), draw.between(0, 1, 3), t=2, **settings)
    yield Try("an eps of 0.5", draw(3), draw(3), draw.between(0, 1, 3), t=3, **settings | {"eps": 0.5})


EXERCISES = (
    Exercise(
        name="mean square",
        of="accumulate",
        task="The running mean of squared gradients, in place.",
        hints=("squares ← decay · squares + (1 - decay) · g².",),
        tries=of_squares,
    ),
    Exercise(
        name="step",
        of="RMSProp.update",
        task="The mean square first, then the step divided by its root, in place.",
        hints=("w ← w - lr · g / (√squares + eps), with the new mean square and eps outside of the root.",),
        tries=of_steps,
    ),
)
