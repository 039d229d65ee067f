"""Trains two networks with batch normalisation, without it, and with the first batch's statistics."""

import math
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from readtrack.plugin import (
    UNTRAINED,
    Arm,
    AtLeast,
    Break,
    Claim,
    Figure,
    Run,
    Sweep,
    Trial,
    at_least,
    at_most,
    hookimpl,
)
from readtrack.runs.table import Value

from .convolutions import Measures, Norm, attempt, digits, read_off
from .convolutions import network as convolutional
from .model import BatchNorm
from .variants import Constant, NoMean, NoVariance, OnlyStarted, centred

NO_VARIANCE = Break(
    "no variance",
    "The mean of the batch is subtracted, without dividing by the standard deviation.",
    "near miss",
)
NO_MEAN = Break(
    "no mean",
    "Values are divided by the batch's standard deviation, without subtracting the mean.",
    "near miss",
)
CONSTANT = Break(
    "constant statistics",
    "No gradient flows through the batch's mean and variance. Section 2 calls this gradient essential.",
    "near miss",
)
START = Break(
    "normalised start alone",
    "The statistics of the first batch are used throughout training, which is a data-dependent "
    "initialisation.",
    "rival",
)
CLIPPED = Break(
    "normalised start and clipped gradients",
    "There is no normalisation. The initialisation is data-dependent, and gradients are clipped to a norm of "
    "1.",
    "rival",
)
CENTRED = Break(
    "normalised start and centred filters",
    "There is no normalisation after the start. The statistics of the first batch are used throughout "
    "training, and the mean of each filter's weights is subtracted from them.",
    "rival",
)

BELOW = "steps below 90 %"
HIGHEST = "highest learning rate that works"

FIGURE_1 = (
    "Figure 1's network (three layers of 100 sigmoid units, batches of 60) is trained on 8 × 8 digits for "
    "800 steps of SGD. All networks start from Xavier initialisation instead of 'small random Gaussian "
    "values'. "
)

FEWER_STEPS = Claim(
    name="steps to 90 % accuracy, with and without",
    sentence="A sigmoid network spends at most a seventh as many steps below 90 % accuracy with batch "
    "normalisation as without it, both at their best learning rates.",
    paper=Figure(
        "With batch normalisation, 14 times fewer steps give the same accuracy on ImageNet",
        where="abstract",
        read="abstract",
    ),
    rule=(at_least(BELOW, "without", 7.0, over="with", toward=1.0),),
    control="the same network without normalisation, tuned on the same grid of learning rates",
    control_arm="without",
    control_reaches=(at_least("best accuracy", "without", 0.7),),
    learned=(at_least("training accuracy", "without", 0.9),),
    breaks=(NO_VARIANCE, START, UNTRAINED),
    chosen_on=(0, 1),
    deviations=FIGURE_1 + "We measure the accuracy on held-out digits every 10 steps and count the steps "
    "below 90 %. The network without normalisation only just reaches 90 %.",
    headline=True,
    history=(
        (
            'Until November 2026 the verdict was "reproduced" (5 of 5 seeds, same bound). The network with '
            "the first batch's statistics also passed the rule, but was shown only for comparison. It is "
            "now a rival. The set-up was chosen on seeds 0, 1 and 2."
        ),
    ),
)

HIGHER_RATES = Claim(
    name="highest learning rate, with, without, and with a normalised start",
    sentence="A sigmoid network trains at learning rates at least five times as high with batch "
    "normalisation as without it, and at least five times as high as with the statistics of the first batch.",
    paper=Figure(
        "Inception trains at 5 and 30 times its original learning rate", where="section 4.2.2", read="text"
    ),
    rule=(
        at_least(HIGHEST, "with", 5.0, over="without", toward=2.0),
        at_least(HIGHEST, "with", 5.0, over="only started so", toward=2.0),
    ),
    control="the same network without normalisation, and with the first batch's statistics throughout "
    "training",
    control_arm="without",
    control_reaches=(
        at_most(HIGHEST, "without", 50.0),
        at_most(HIGHEST, "only started so", 50.0),
    ),
    learned=(at_least("training accuracy", "without", 0.9),),
    breaks=(CONSTANT, CLIPPED, UNTRAINED),
    chosen_on=(0, 1),
    deviations=FIGURE_1 + "A learning rate works if the final loss on held-out digits is below half of ln "
    "10. Guessing has a loss of ln 10. Neighbouring values on the grid differ by a factor of about 3.",
    history=(
        (
            'Until November 2026 the verdict was "reproduced" (5 of 5 seeds, same bounds). Gradient '
            "clipping is a new rival. A run in which a control works at the highest learning rate of the "
            "grid is no longer judged. It used to count as missed. The set-up was chosen on seeds 0, 1 and 2."
        ),
        (
            "In an earlier version, the rival clipped gradients to a norm of 0.03 and passed the rule on "
            "seed 7101, at a learning rate of 100. Without normalisation, the first gradients have norms of "
            "0.6 to 2.3, so clipping made them 20 to 80 times shorter. Dividing all gradients by a constant "
            "multiplies the highest learning rate by the same constant, whatever the method. The "
            "rival now clips to a norm of 1 again. With its normalised start, the first gradients have norms "
            "of 1.8 to 5.2."
        ),
    ),
)

STEPS = 100

IMAGES = Claim(
    name="loss of deep convolutions, with, without, and with a normalised start",
    sentence="After 100 steps, a deep convolutional network with batch normalisation has at most half the "
    "held-out loss of the same network without it, and at most three quarters of its loss with the first "
    "batch's statistics.",
    paper=Figure(
        "On ImageNet, the normalised network is more accurate than Inception, which reaches 72.2 %",
        where="section 4.2.2 and figure 3",
        read="text",
    ),
    rule=(
        at_most("loss", "with", 0.5, over="without", toward=1.0),
        at_most("loss", "with", 0.75, over="only started so", toward=1.0),
    ),
    control="the same network without normalisation, and with the first batch's statistics throughout "
    "training",
    control_arm="without",
    control_reaches=(at_most("loss", "without", 2.2),),
    after_steps=STEPS,
    breaks=(NO_MEAN, CONSTANT, CLIPPED, CENTRED, UNTRAINED),
    chosen_on=(0, 1),
    deviations="A network of seven convolutions is trained on noisy 8 × 8 digits for 100 steps with batches "
    "of 32. The loss is measured on held-out digits, with each network at the best of four learning rates. "
    "The paper trains a network of inception modules on ImageNet.",
    history=(
        (
            'Until November 2026 the verdict was "reproduced" (5 of 5 seeds, same bounds). Gradient clipping '
            "is a new rival, and the sentence now states the number of steps. The set-up was chosen on seeds "
            "0, 1 and 2."
        ),
        (
            "Until the end of November 2026 gradient clipping was the only rival, and the verdict was "
            '"reproduced" (10 of 10 seeds, same bounds). Centred filters with the statistics of the first '
            "batch pass the rule. On seeds 7101 and 7102, their loss is 0.24 and 0.19 times that without "
            "normalisation, and 0.38 and 0.59 times that with the first batch's statistics alone. Batch "
            "normalisation's loss is 0.28 and 0.14 times, and 0.45 and 0.41 times. Dividing the centred "
            "filters by their standard deviation, too, gives 0.45 and 0.50 times the latter. Normalising "
            "each example over all channels gives 1.62 and 2.01 times, which does not pass. The near miss "
            "had no variance instead of no mean, and passed the rule: the initial weights already keep "
            "the scale of this network's values."
        ),
    ),
)

GOAL = 0.9  # accuracy
GUESSING = math.log(10)  # the loss of uniform predictions
EVERY = 10  # steps between evaluations


class Setting(NamedTuple):
    """An arm.

    norm     its normalisation
    clip     the norm to which gradients are clipped
    centred  whether convolutions subtract the mean of each filter's weights
    """

    norm: Norm
    clip: float | None = None
    centred: bool = False


ARMS = {
    "with": Setting(BatchNorm),
    "without": Setting(nn.Identity),
    "only started so": Setting(OnlyStarted),
}
BREAKS = {
    NO_VARIANCE: Setting(NoVariance),
    NO_MEAN: Setting(NoMean),
    CONSTANT: Setting(Constant),
    START: Setting(OnlyStarted),
    CLIPPED: Setting(OnlyStarted, clip=1.0),
    CENTRED: Setting(OnlyStarted, centred=True),
}


@hookimpl
def experiment(run: Run) -> None:
    world = digits(run)
    arms = {name: Arm(setting) for name, setting in ARMS.items()}
    run.compare(
        FEWER_STEPS,
        HIGHER_RATES,
        arms=arms,
        attempt=train,
        read=steps_and_rates,
        grid=run.pick(
            smoke=(1.0, 3.0),
            quick=(0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
            full=(0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
        ),
        widen=False,
        score="what is missing to 90 %",
        breaks=replacing(FEWER_STEPS, HIGHER_RATES),
        world=world,
        judged_on="training",  # the length of training, and whether it fails
    )
    run.compare(
        IMAGES,
        arms=arms,
        attempt=partial(of_images, steps=run.pick(smoke=2, quick=STEPS, full=600)),
        read=read_off,
        grid=run.pick(smoke=(0.06,), quick=(0.02, 0.06, 0.2, 0.6), full=(0.006, 0.02, 0.06, 0.2, 0.6)),
        score="validation loss on images",
        breaks=replacing(IMAGES),
        world=world,
    )
    run.headline("accuracy at the best rate")


def replacing(*claims: Claim) -> dict[str, dict[str, Arm[Setting]]]:
    """The claims' breaks, each with the arm that replaces batch normalisation."""
    named = {one for claim in claims for one in claim.breaks}
    return {one.name: {"with": Arm(setting)} for one, setting in BREAKS.items() if one in named}


def of_images(at: Trial, setting: Setting, rate: float, *, steps: int) -> tuple[float, Measures]:
    def make(_: Tensor) -> nn.Sequential:
        network = convolutional(setting.norm)
        return centred(network) if setting.centred else network

    return attempt(at, make, rate, steps=steps, clip=setting.clip)


# Figure 1


class Trained(NamedTuple):
    """Results of one network at one learning rate.

    accuracy  test accuracy by step
    end       test loss after training
    training  training accuracy after training
    """

    accuracy: dict[int, float]
    end: float
    training: float


def network(norm: Norm, *, pixels: int = 64, width: int = 100) -> nn.Sequential:
    """Figure 1's network: three layers of sigmoids, with normalisation before each sigmoid (section 3.2)."""
    layers: list[nn.Module] = []
    for inputs in (pixels, width, width):
        layers += [nn.Linear(inputs, width), norm(width), nn.Sigmoid()]
    layers.append(nn.Linear(width, 10))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def train(at: Trial, setting: Setting, rate: float) -> tuple[float, Trained]:
    """Returns the validation accuracy's mean shortfall from 90 % during training, and the test results."""
    run, parts = at.run, [(x.flatten(1), y) for x, y in at.world]
    x, y = parts[0]
    model = network(setting.norm, pixels=x.shape[1]).to(run.device, run.dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    batches = at.generator("batches")
    found: dict[int, list[float]] = {}
    run.phase("train")
    steps, state = run.pick(smoke=20, quick=800, full=5000), (model, optimizer, found)
    for step in at.steps(steps, f"{at.name}, rate {rate:g}", state):
        rows = torch.randint(len(x), (60,), generator=batches)
        loss = F.cross_entropy(model(x[rows]), y[rows])
        at.descend(loss, optimizer, step=step, metric=f"loss at rate {rate:g}", clip=setting.clip)
        if (step + 1) % EVERY == 0:
            found[step + 1], _ = evaluate(run, model, parts[1:])
    run.phase("evaluate")
    (training, *last), end = evaluate(run, model, parts)
    found = found or {EVERY: last}
    missing = [max(GOAL - to_choose_by, 0.0) for to_choose_by, _ in found.values()]
    accuracy = {step: judged for step, (_, judged) in found.items()}
    return sum(missing) / len(missing), Trained(accuracy, end, training)


def evaluate(run: Run, model: nn.Module, parts: list[tuple[Tensor, Tensor]]) -> tuple[list[float], float]:
    """Accuracy on each part and loss on the last part, from one forward pass."""
    with run.evaluating(model):
        scores = model(torch.cat([x for x, _ in parts])).split([len(x) for x, _ in parts])
        right = [(s.argmax(1) == y).float().mean().item() for s, (_, y) in zip(scores, parts, strict=True)]
        return right, F.cross_entropy(scores[-1], parts[-1][1]).item()


def steps_and_rates(at: Trial, found: Sweep[Trained]) -> dict[str, Value]:
    for step, accuracy in found.chosen.accuracy.items():
        at.metric("accuracy at the best rate", accuracy, step=step)
    ends = {rate: trained.end for rate, trained in found.points.items() if isinstance(rate, float)}
    for rate, end in ends.items():
        at.metric("end loss over rate", end, step=rate)
    return {
        BELOW: steps_below(found.chosen.accuracy),
        "best accuracy": max(found.chosen.accuracy.values()),
        "training accuracy": found.chosen.training,
        HIGHEST: highest(ends),
    }


def steps_below(accuracy: Mapping[int, float]) -> float | AtLeast:
    """Number of steps below 90 % accuracy, or a lower bound if the last accuracy is below 90 %."""
    steps = min(accuracy) * (1.0 + sum(reached < GOAL for reached in accuracy.values()))
    return AtLeast(steps) if accuracy[max(accuracy)] < GOAL else steps


def highest(ends: Mapping[float, float]) -> float | AtLeast:
    """The largest learning rate whose final loss is below half the loss of uniform guessing.

    The value is a lower bound if it is the largest that was tried, and NaN if none works. `ends` maps
    learning rates to losses.
    """
    rate = max((rate for rate, loss in ends.items() if loss < GUESSING / 2), default=math.nan)
    return AtLeast(rate) if rate == max(ends) else rate
