"""Adam and its predecessors on three kinds of gradients, and figure 4."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch

from readtrack.plugin import Bound, Break, Claim, Figure, Run, hookimpl

from ..momentum import Momentum
from ..rmsprop import RMSProp
from ..sgd import SGD, Optimizer
from ..sgd.trials import (
    RATES,
    Make,
    NextCharacter,
    Problem,
    Tuned,
    digits,
    perceptron,
    pixel_scales,
    prose,
    tune,
    walk,
)
from .model import Adam

RIVALS = ("SGD", "heavy ball", "Nesterov momentum", "AdaGrad", "RMSProp")
NO_SCALING = Break("no scaling", "Adam's division by the root of the second moment.")
NO_MOMENTUM = Break("no momentum", "Adam's first moment: beta1 is 0.")
NO_CORRECTION = Break("no correction", "The division of both moments by 1 − βᵗ, in the corrected arm too.")

AT_LEAST_AS_FAST = Claim(
    name="at least as fast",
    sentence="With the same tuning, Adam trains a network further in the same number of steps than the "
    "optimisers that it is made of, and than AdaGrad.",
    paper=Figure(
        "Curves: as fast as the best or faster on MNIST and IMDB, marginally ahead of momentum on CIFAR-10.",
        where="figures 1 to 3",
        read="text",
    ),
    rule=tuple(Bound(f"loss of Adam / loss of {arm}", "<", 1.0, 1.1, ratio=True) for arm in RIVALS),
    control="each of them at the best of eight rates",
    control_reaches=(Bound("loss of Nesterov momentum", "<=", 0.1),),
    breaks=(NO_SCALING,),
    chosen_on=(0, 1, 2),
    deviations="A perceptron with 64 hidden units on the 8 x 8 digits, whose gradients are dense and well "
    "scaled; 200 batches of 64; the loss is that of the last 50.",
)

EITHER_KIND = Claim(
    name="either kind of problem",
    sentence="Adam is near the best both where momentum is good and where scaling each coordinate is: its "
    "worse result falls less far behind than that of any other.",
    paper=Figure(
        "As fast as Nesterov momentum on dense MNIST and as AdaGrad on sparse IMDB features.",
        where="section 6.1, figure 1",
        read="text",
    ),
    rule=tuple(
        Bound(f"Adam's worse ratio / that of {arm}", "<=", 0.9, direction=1.0, ratio=True) for arm in RIVALS
    ),
    control="as above; the ratio is an arm's loss over the lowest loss on the same problem",
    control_reaches=(Bound("loss of Nesterov momentum", "<=", 0.1),),
    breaks=(NO_SCALING, NO_MOMENTUM),
    chosen_on=(0, 1, 2),
    deviations="As above; the second problem is the digits with each pixel multiplied by 10^u, u uniform in "
    "[−1.5, 1.5].",
)

SPARSE = Claim(
    name="sparse gradients",
    sentence="Where most gradients are zero, Adam trains about as far as AdaGrad and RMSProp, and further "
    "than a single global step does, with Nesterov momentum or without.",
    paper=Figure(
        "On a bag of words Adam is as fast as AdaGrad and faster than Nesterov momentum.",
        where="section 6.1, figure 1",
        read="text",
    ),
    rule=(
        Bound("nats behind Adam: Nesterov momentum", ">=", 0.05, direction=0.0),
        Bound("nats behind Adam: SGD", ">=", 0.05, direction=0.0),
        Bound("nats behind Adam: AdaGrad", ">=", -0.03, direction=-0.06),
        Bound("nats behind Adam: RMSProp", ">=", -0.03, direction=-0.06),
    ),
    control="each of them at the best of eight rates",
    control_reaches=(Bound("loss of SGD", "<=", 2.7),),
    breaks=(NO_SCALING,),
    chosen_on=(0, 1, 2),
    deviations="Predicting the next character from eight embedded ones, 300 batches of 64; the loss is that "
    "of the last 75. The paper's is a logistic regression on 10,000 words, with dropout.",
)

FIRST_STEPS = Claim(
    name="first steps",
    sentence="With a long memory of squares, at the step that suits Adam, leaving out the correction of the "
    "bias makes the first steps unstable.",
    paper=Figure(
        "Curves: without it, training is unstable for beta2 close to 1, above all in the first epochs.",
        where="section 6.4, figure 4",
        read="text",
    ),
    rule=(Bound("worst of 50 losses, uncorrected / corrected", ">=", 3.0, direction=1.0, ratio=True),),
    control="the same steps, batches and weights without the correction",
    control_reaches=(Bound("end loss at its own step, uncorrected", "<=", 0.2),),
    breaks=(NO_CORRECTION,),
    chosen_on=(0, 1, 2),
    deviations="The perceptron on digits, not a variational autoencoder; beta2 = 0.9999. The step is the "
    "best of nine for Adam with the correction; at its own best, a smaller one, the other arm is stable too.",
)

EQUALLY_TUNED = Claim(
    name="bias correction, equally tuned",
    sentence="With a long memory of squares, Adam trains further with the correction of its bias than "
    "without, each at its own best step.",
    paper=Figure(
        "The best results are those with the correction and a small 1 − beta2.",
        where="section 6.4, figure 4",
        read="text",
    ),
    rule=(
        Bound("end loss, uncorrected / corrected", ">=", 1.2, direction=1.0, ratio=True),
        Bound("steps that train, corrected − uncorrected", ">=", 1.0, direction=0.0),
    ),
    control="no correction, at the best of the same nine steps",
    control_reaches=(Bound("end loss at its own step, uncorrected", "<=", 0.2),),
    breaks=(NO_CORRECTION,),
    chosen_on=(0, 1, 2),
    deviations="As above. A step trains if the loss ends below half of ln 10. Over 200 batches the bias is a "
    "step that falls like 1/√t, a schedule that the corrected arm lacks.",
)

STEPS = tuple(10 ** (exponent / 2) for exponent in range(-8, 1))  # nine from 1e-4 to 1


class Uncorrected(Adam):
    """Without the division of both moments by 1 − βᵗ: at so large a t it is 1."""

    def count(self, state: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        return {**super().count(state, settings), "t": 10**12}


def unscaled(weights: Iterable[Any], lr: float) -> Optimizer:
    """Adam with an eps beside which no second moment counts: the corrected first moment, times `lr`."""
    return Adam(weights, 1e6 * lr, eps=1e6)


@hookimpl
def experiment(run: Run) -> None:
    run.headline("training loss, next character")
    run.phase("train")
    if run.wants(AT_LEAST_AS_FAST, EITHER_KIND):
        compare_on_digits(run)
    if run.wants(SPARSE):
        compare_on_characters(run)
    if run.wants(FIRST_STEPS, EQUALLY_TUNED):
        leave_out_the_correction(run)


def optimisers(run: Run, *names: str) -> dict[str, Make]:
    ours: Make = Adam
    if run.without("no scaling"):
        ours = unscaled
    elif run.without("no momentum"):
        ours = partial(Adam, betas=(0.0, 0.999))
    makers = {
        "SGD": SGD,
        "heavy ball": Momentum,
        "Nesterov momentum": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
        "AdaGrad": torch.optim.Adagrad,
        "RMSProp": RMSProp,
        "Adam": ours,
    }
    return run.arms({name: makers[name] for name in names}, control="Nesterov momentum")


def compare_on_digits(run: Run) -> None:
    """Every arm on the digits, and on digits whose pixels differ in scale."""
    images, labels = digits(run).train
    scales = pixel_scales(run.generator("scales")).to(images)
    arms = optimisers(run, *RIVALS, "Adam")
    dense = tune_all(run, Problem("digits", perceptron, images, labels), arms)
    losses = {arm: one.loss for arm, one in dense.items()}
    nesterov = {"loss of Nesterov momentum": losses["Nesterov momentum"]}
    if run.wants(AT_LEAST_AS_FAST):
        values = {f"loss of Adam / loss of {arm}": losses["Adam"] / losses[arm] for arm in RIVALS}
        run.claim(AT_LEAST_AS_FAST, values | nesterov, tuned=[one.best for one in dense.values()])
    scaled = tune_all(run, Problem("badly scaled digits", perceptron, images * scales, labels), arms)
    worse = {
        arm: max(losses[arm] / min(losses.values()), one.loss / min(other.loss for other in scaled.values()))
        for arm, one in scaled.items()
    }
    for arm, ratio in worse.items():
        run.metric("loss / lowest loss, on the worse of the two", ratio, arm=arm)
    values = {f"Adam's worse ratio / that of {arm}": worse["Adam"] / worse[arm] for arm in RIVALS}
    sweeps = [one.best for one in (*dense.values(), *scaled.values())]
    run.claim(EITHER_KIND, values | nesterov, tuned=sweeps)


def compare_on_characters(run: Run) -> None:
    before, after, count = prose(run)
    problem = Problem("next character", partial(NextCharacter, count), before, after)
    rivals = [bound.metric.removeprefix("nats behind Adam: ") for bound in SPARSE.bounds]
    found = tune_all(run, problem, optimisers(run, *rivals, "Adam"), steps=300)
    values = {f"nats behind Adam: {arm}": found[arm].loss - found["Adam"].loss for arm in rivals}
    values["loss of SGD"] = found["SGD"].loss
    run.claim(SPARSE, values, tuned=[one.best for one in found.values()])


def tune_all(run: Run, problem: Problem, arms: dict[str, Make], *, steps: int = 200) -> dict[str, Tuned]:
    steps, rates = run.pick(smoke=(4, RATES[2:3]), quick=(steps, RATES), full=(5 * steps, RATES))
    return {arm: tune(run, problem, arm, make, steps=steps, rates=rates) for arm, make in arms.items()}


def leave_out_the_correction(run: Run) -> None:
    """Figure 4: both arms at every step, with a long memory and a short one."""
    images, labels = digits(run).train
    steps, rates = run.pick(smoke=(4, STEPS[3:5]), quick=(200, STEPS), full=(1000, STEPS))
    kinds = {"corrected": Uncorrected if run.without("no correction") else Adam, "uncorrected": Uncorrected}
    for beta2 in (0.99, 0.9999):
        problem = Problem(f"beta2 {beta2:g}", perceptron, images, labels)
        arms = run.arms(
            {arm: partial(kind, betas=(0.9, beta2)) for arm, kind in kinds.items()},
            control="uncorrected",
        )
        found = {arm: tune(run, problem, arm, make, steps=steps, rates=rates) for arm, make in arms.items()}
    # The longer memory is the last.
    at_ours = {
        arm: walk(run, problem, arm, make, found["corrected"].best.value, steps=steps, draw="judge")[1]
        for arm, make in arms.items()
    }
    for arm, losses in at_ours.items():
        for step in range(0, steps, max(steps // 50, 1)):
            run.metric("training loss at the corrected arm's step", losses[step], step=step, arm=arm)
    sweeps = [one.best for one in found.values()]
    end = {"end loss at its own step, uncorrected": found["uncorrected"].loss}
    worst = {arm: max(losses[:50]) for arm, losses in at_ours.items()}
    ratio = worst["uncorrected"] / worst["corrected"]
    run.claim(FIRST_STEPS, {"worst of 50 losses, uncorrected / corrected": ratio, **end}, tuned=sweeps)
    train = {arm: sum(loss < math.log(10) / 2 for loss in one.scores) for arm, one in found.items()}
    values = {
        "end loss, uncorrected / corrected": found["uncorrected"].loss / found["corrected"].loss,
        "steps that train, corrected − uncorrected": float(train["corrected"] - train["uncorrected"]),
    }
    run.claim(EQUALLY_TUNED, values | end, tuned=sweeps)
