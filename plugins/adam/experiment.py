"""Compares Adam with older optimisers under dropout and with sparse gradients, and tests bias correction."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from readtrack.plugin import (
    UNTRAINED,
    Arm,
    Bound,
    Break,
    Claim,
    Figure,
    Run,
    Sweep,
    Table,
    Trial,
    at_least,
    at_most,
    hookimpl,
)

from ..momentum import Momentum
from ..rmsprop import RMSProp
from ..sgd import SGD, Optimizer, Vector
from ..sgd.trials import (
    RATES,
    Make,
    NextCharacter,
    Problem,
    digits,
    end_loss,
    late,
    perceptron,
    prose,
    race,
)
from .model import Adam, Betas

NO_SCALING = Break("no scaling", "Adam does not divide by the root of the second moment.")
ONE_DIVISOR = Break(
    "one divisor for all weights",
    "The second moment is averaged over all weights as well as over time, so every weight has the same "
    "divisor.",
    "near miss",
)
AS_RMSPROP = Break(
    "RMSProp", "RMSProp replaces Adam. RMSProp has no first moment and no bias correction.", "rival"
)
AS_ADAGRAD = Break(
    "AdaGrad",
    "AdaGrad replaces Adam. AdaGrad divides by the root of the sum of all squared gradients.",
    "rival",
)

DROPOUT = Claim(
    name="loss under dropout",
    sentence=(
        "On a network with dropout, Adam's training loss after 300 steps is lower than the loss of SGD, "
        "heavy-ball momentum and Nesterov momentum, and at most 10 % higher than the loss of AdaGrad and "
        "RMSProp. Each optimiser uses its best learning rate."
    ),
    paper=Figure(
        "The curves show that on multi-layer networks trained with dropout, Adam converges better than "
        "AdaGrad, RMSProp, SGD with Nesterov momentum and AdaDelta.",
        where="section 6.2, figure 2 a",
        read="text",
    ),
    rule=(
        at_most("end loss", "Adam", 0.9, over="Nesterov momentum", toward=1.0),
        at_most("end loss", "Adam", 0.9, over="heavy ball", toward=1.0),
        at_most("end loss", "Adam", 0.9, over="SGD", toward=1.0),
        at_most("end loss", "Adam", 1.1, over="AdaGrad"),
        at_most("end loss", "Adam", 1.1, over="RMSProp"),
    ),
    control="SGD with Nesterov momentum 0.9, the paper's strongest optimiser without per-coordinate scaling",
    control_arm="Nesterov momentum",
    control_reaches=(at_most("end loss", "Nesterov momentum", 0.8),),
    after_steps=300,
    breaks=(NO_SCALING, ONE_DIVISOR, AS_RMSPROP, UNTRAINED),
    chosen_on=(0, 1),
    deviations=(
        "The data are 8 × 8 digits instead of MNIST. The network has two hidden layers of 256 units instead "
        "of 1,000, and dropout of 0.5 after each layer. Batches have 64 images instead of 128. The learning "
        "rate is constant, and is the best of at least seven values. We leave out AdaDelta. The loss is the "
        "mean over the last 75 batches of a second training run at the chosen learning rate. The paper finds "
        "Adam better than AdaGrad and RMSProp. The rule allows a loss that is 10 % higher."
    ),
    headline=True,
    history=(
        (
            "Until November 2026 the network had 64 units and no dropout, and the claim was that Adam has a "
            'lower loss than all five rivals. The verdict was "not reproduced" (0 of 5 seeds), and the ratio '
            "of Adam's loss to Nesterov momentum's was 1.55."
        ),
        (
            "A second claim measured the ratio of each optimiser's loss to the lowest loss, on well-scaled "
            "and on badly scaled digits, and kept the higher of the two ratios. It stated that Adam's ratio "
            'is the lowest. The verdict was "inconclusive" (7 of 10 seeds). We removed this claim because '
            "the paper makes no such comparison."
        ),
    ),
)

SPARSE = Claim(
    name="loss with sparse gradients",
    sentence="With sparse gradients, Adam's training loss after 300 steps is lower than the loss of SGD "
    "with and without Nesterov momentum, and at most 0.03 nats higher than the loss of AdaGrad and RMSProp. "
    "Each optimiser uses its best learning rate.",
    paper=Figure(
        "The curves show that on a bag of words, Adam is as fast as AdaGrad and faster than Nesterov "
        "momentum.",
        where="section 6.1, figure 1",
        read="text",
    ),
    rule=(
        at_most("end loss", "Adam", -0.05, minus="Nesterov momentum", toward=0.0),
        at_most("end loss", "Adam", -0.05, minus="SGD", toward=0.0),
        at_most("end loss", "Adam", 0.03, minus="AdaGrad"),
        at_most("end loss", "Adam", 0.03, minus="RMSProp"),
    ),
    control="SGD with Nesterov momentum 0.9",
    control_arm="Nesterov momentum",
    control_reaches=(at_most("end loss", "SGD", 2.7),),
    after_steps=300,
    breaks=(NO_SCALING, ONE_DIVISOR, AS_ADAGRAD, UNTRAINED),
    chosen_on=(0, 1),
    deviations="A network with two hidden layers predicts the next character of English prose from the "
    "embeddings of the previous eight. Training takes 300 batches of 64. Only the embeddings, 7.5 % of the "
    "weights, have sparse gradients. The paper trains a logistic regression on bags of words from film "
    "reviews, with a vocabulary of 10,000 words, dropout of 0.5 on the words and a learning rate "
    "proportional to 1/√t. The loss, in nats, is the mean over the last 75 batches.",
    history=(
        (
            'Until November 2026 the verdict was "reproduced" (5 of 5 seeds, same bounds). AdaGrad and '
            "RMSProp were part of the comparison, but no break replaced Adam with them."
        ),
    ),
)

FIRST_STEPS = Claim(
    name="first steps without the correction",
    sentence="With beta2 close to 1, omitting bias correction makes Adam's first steps (1 − beta1) / √(1 − "
    "beta2) times as long. At the learning rate that is best with bias correction, the loss then rises.",
    paper=Figure(
        "The curves show that without bias correction, training is unstable for beta2 close to 1, "
        "especially in the first epochs.",
        where="section 6.4, figure 4",
        read="text",
    ),
    rule=(Bound("worst of 50 losses, uncorrected / corrected", ">=", 3.0, direction=1.0, ratio=True),),
    kind="theorem",
    control="Adam without bias correction, with the same initial weights, batches and learning rate",
    deviations="The network is a perceptron on digits, not a variational autoencoder. With beta2 = 0.9999, "
    "the first steps are 10 times as long. The learning rate is the best of nine for Adam with bias "
    "correction.",
    history=(
        (
            'Until November 2026 this claim counted as measured, and the verdict was "reproduced" (5 of 5 '
            "seeds). It is now a theorem, because steps that are ten times too long always make the loss "
            "rise."
        ),
    ),
)

ONE_MOMENT = Break("one moment corrected", "Only the second moment is corrected.", "near miss")
WARM_UP = Break(
    "warm-up in its place",
    "The learning rate rises over the first 50 steps, and no moment is corrected.",
    "rival",
)

EQUALLY_TUNED = Claim(
    name="bias correction, equally tuned",
    sentence="With beta2 close to 1, Adam's training loss after 200 steps is lower with bias correction "
    "than without it, both at their best learning rates. With bias correction, Adam also trains at more "
    "learning rates.",
    paper=Figure(
        "The best results are those with bias correction and a small 1 − beta2.",
        where="section 6.4, figure 4",
        read="text",
    ),
    rule=(
        at_most("end loss", "corrected", 0.83, over="uncorrected", toward=1.0),
        at_least("steps that train", "corrected", 1.0, minus="uncorrected", toward=0.0),
    ),
    control="Adam without bias correction, at its best learning rate from the same grid",
    control_arm="uncorrected",
    control_reaches=(at_most("end loss", "uncorrected", 0.2),),
    after_steps=200,
    breaks=(ONE_MOMENT, WARM_UP, UNTRAINED),
    chosen_on=(0, 1),
    deviations="We train a perceptron of 64 units on 8 × 8 digits with beta2 = 0.9999, not a variational "
    "autoencoder. Adam counts as trained at a learning rate if the final loss is below half of ln 10. Over "
    "200 batches the bias acts like a learning rate proportional to 1/√t, a schedule that Adam with bias "
    "correction lacks. In trials with 800 batches, which this claim does not judge, bias correction was "
    "ahead with two of three seeds. Without it, Adam also trains at the grid's lowest learning rate, so its "
    "range may extend below the grid.",
    history=(
        (
            'Until November 2026 the verdict was "not reproduced" (0 of 5 seeds). The bounds were the same: '
            "the uncorrected loss had to be at least 1.2 times the corrected loss. The claim had no near "
            "miss and no rival."
        ),
    ),
)

STEPS = tuple(10 ** (exponent / 2) for exponent in range(-8, 1))  # nine learning rates from 1e-4 to 1
FOREVER = 10**12  # a step so late that 1 − βᵗ is 1, so nothing is corrected


def unscaled(weights: Iterable[Any], lr: float) -> Optimizer:
    """Adam with an eps so large that a step is `lr` times the corrected first moment."""
    return Adam(weights, 1e6 * lr, eps=1e6)


class OneDivisor(Adam):
    @staticmethod
    def update(
        w: Vector, g: Vector, m: Vector, v: Vector, *, t: int, lr: float, betas: Betas, eps: float
    ) -> None:
        m.lerp_(g, 1 - betas[0])
        v.lerp_((g * g).mean().expand_as(g), 1 - betas[1])
        v_hat = v / (1 - betas[1] ** t)
        w -= lr / (1 - betas[0] ** t) * m / (v_hat.sqrt() + eps)


class Uncorrected(Adam):
    """Adam without the division of both moments by 1 − βᵗ."""

    def count(self, state: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        return {**super().count(state, settings), "t": FOREVER}


class OneCorrected(Adam):
    @staticmethod
    def update(
        w: Vector, g: Vector, m: Vector, v: Vector, *, t: int, lr: float, betas: Betas, eps: float
    ) -> None:
        Adam.update(w, g, m, v, t=t, lr=lr * (1 - betas[0] ** t), betas=betas, eps=eps)


class WarmedUp(Uncorrected):
    def count(self, state: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        numbers = super().count(state, settings)
        return {**numbers, "lr": settings["lr"] * min(state["t"] / 50, 1)}


def with_dropout(pixels: int) -> nn.Sequential:
    """Two hidden layers of 256 units, each with dropout, and logits for ten classes."""
    hidden = [layer for size in (pixels, 256) for layer in (nn.Linear(size, 256), nn.ReLU(), nn.Dropout(0.5))]
    return nn.Sequential(*hidden, nn.Linear(256, 10))


RIVALS: dict[str, Make] = {
    "Nesterov momentum": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    "SGD": SGD,
    "heavy ball": Momentum,
    "AdaGrad": torch.optim.Adagrad,
    "RMSProp": RMSProp,
}
OPTIMISERS = {"Adam": "the claim compares the optimisers"}


@hookimpl
def experiment(run: Run) -> None:
    run.headline("training loss, digits under dropout")
    run.phase("train")
    images, labels = digits(run)[0]
    before, after, count = prose(run)
    rivals = {name: Arm(make) for name, make in RIVALS.items()}
    breaks = {
        NO_SCALING.name: {"Adam": Arm(unscaled)},
        ONE_DIVISOR.name: {"Adam": Arm(OneDivisor)},
    }
    compare(
        run,
        DROPOUT,
        Problem("digits under dropout", partial(with_dropout, images.shape[1]), images, labels),
        arms={"Adam": Arm(Adam), **rivals},
        breaks={**breaks, AS_RMSPROP.name: {"Adam": Arm(RMSProp)}},
        steps=300,
    )
    rivals.pop("heavy ball")
    compare(
        run,
        SPARSE,
        Problem("next character", partial(NextCharacter, count), before, after),
        arms={"Adam": Arm(Adam), **rivals},
        breaks={**breaks, AS_ADAGRAD.name: {"Adam": rivals["AdaGrad"]}},
        steps=300,
    )
    problem = Problem("digits, beta2 0.9999", partial(perceptron, images.shape[1]), images, labels)
    leave_out_the_correction(run, problem)


def compare(
    run: Run,
    claim: Claim,
    problem: Problem,
    *,
    arms: dict[str, Arm[Make]],
    breaks: dict[str, dict[str, Arm[Make]]],
    steps: int,
) -> Table:
    return run.compare(
        claim,
        arms=arms,
        attempt=partial(race, steps=run.pick(smoke=4, quick=steps, full=5 * steps)),
        read=end_loss,
        grid=run.pick(smoke=RATES[2:3], quick=RATES[:7], full=RATES),
        score=f"training loss, {problem.name}",
        again=True,
        world={None: problem},
        breaks=breaks,
        judged_on="training",
        unequal=OPTIMISERS,
    )


def leave_out_the_correction(run: Run, problem: Problem) -> None:
    """Figure 4: train Adam with and without bias correction at every learning rate, with beta2 close to 1."""

    def arm(kind: type[Adam]) -> Arm[Make]:
        return Arm(partial(kind, betas=(0.9, 0.9999)))

    arms = {"corrected": arm(Adam), "uncorrected": arm(Uncorrected)}
    steps = run.pick(smoke=4, quick=200, full=1000)
    table = run.compare(
        EQUALLY_TUNED,
        arms=arms,
        attempt=partial(race, steps=steps),
        read=end_loss_and_steps,
        grid=run.pick(smoke=STEPS[3:5], quick=STEPS, full=STEPS),
        what="step",
        score="training loss",
        widen=False,
        again=True,
        world={None: problem},
        breaks={
            ONE_MOMENT.name: {"corrected": arm(OneCorrected)},
            WARM_UP.name: {"corrected": arm(WarmedUp)},
        },
        judged_on="training",
        unequal={"corrected": "the claim compares the optimisers"},
    )
    if run.wants(FIRST_STEPS) and table.sweeps:
        at_ours = table.sweeps["corrected"].point
        worst = {name: max(table.sweeps[name].points[at_ours][:50]) for name in arms}
        for name in arms:
            losses = table.sweeps[name].points[at_ours]
            for step in range(0, len(losses), max(len(losses) // 50, 1)):
                run.metric("training loss at the corrected arm's step", losses[step], step=step, arm=name)
        ratio = worst["uncorrected"] / worst["corrected"]
        run.claim(FIRST_STEPS, {"worst of 50 losses, uncorrected / corrected": ratio})


def end_loss_and_steps(at: Trial, found: Sweep[list[float]]) -> dict[str, float]:
    """`end_loss`, and the number of learning rates at which the loss ended below half of ln 10."""
    trained = sum(late(losses) < math.log(10) / 2 for losses in found.points.values())
    return {**end_loss(at, found), "steps that train": float(trained)}
