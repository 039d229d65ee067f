"""Figure 1's network and a convolutional one: with, without, and with a normalised start alone."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from readtrack import data
from readtrack.plugin import AtLeast, Best, Bound, Break, Claim, Figure, Run, hookimpl

from .convolutions import Norm, best_of_rates
from .model import Batch, BatchNorm, batch_norm, per_feature

NO_VARIANCE = Break("no variance", "The mean of the batch is taken off, and nothing is divided.")
CONSTANT = Break("constant statistics", "No gradient goes through the batch's mean and variance (section 2).")

FEWER_STEPS = Claim(
    name="fewer steps",
    sentence="A network learns in a fraction of the steps.",
    paper=Figure("14 times fewer steps for the same accuracy on ImageNet", where="abstract", read="abstract"),
    rule=(Bound("steps below 90 %, without / with", ">=", 7.0, direction=1.0, ratio=True),),
    control="the same network without",
    control_reaches=(Bound("best accuracy, without", ">=", 0.7),),
    breaks=(NO_VARIANCE,),
    shortcuts=("steps below 90 %, without / only started so",),
    chosen_on=(0, 1, 2),
    deviations="Figure 1's network (three layers of 100 sigmoids, batches of 60) on 8 × 8 digits; all arms "
    "start from Xavier's weights instead of 'small random Gaussian values'. 90 % is what the plain network "
    "just reaches in the steps that there are. Most of the gain is the start's: see what is only started so.",
)

HIGHER_RATES = Claim(
    name="higher rates",
    sentence="Learning rates train that make a network fail which is not normalised, or only at its start.",
    paper=Figure("Inception at 5 and 30 times its learning rate", where="section 4.2.2", read="text"),
    rule=(
        Bound("highest rate that works, with / without", ">=", 5.0, direction=2.0, ratio=True),
        Bound("highest rate that works, with / only started so", ">=", 5.0, direction=2.0, ratio=True),
    ),
    control="the same network without, and with the statistics of its first batch for ever",
    breaks=(CONSTANT,),
    chosen_on=(0, 1, 2),
    deviations="As above. A rate works if the loss on held-out digits ends below half of ln 10, which is "
    "guessing's; rates are a factor of about 3 apart.",
)

IMAGES = Claim(
    name="deep convolutions",
    sentence="After as many steps a deep convolutional network has a lower loss, and not only because of its "
    "start.",
    paper=Figure("A higher accuracy than Inception's 72.2 % of ImageNet", where="figure 3", read="text"),
    rule=(
        Bound("loss on images, with / without", "<=", 0.5, direction=1.0, ratio=True),
        Bound("loss on images, with / only started so", "<=", 0.75, direction=1.0, ratio=True),
    ),
    control="the same network without, and with the statistics of its first batch for ever",
    control_reaches=(Bound("loss on images, without", "<=", 2.2),),
    breaks=(NO_VARIANCE, CONSTANT),
    chosen_on=(0, 1, 2),
    deviations="Seven convolutions on 8 × 8 digits with noise, 100 steps of 32; held-out loss, each arm at "
    "the best of four rates.",
)

GOAL = 0.9  # accuracy
GUESSING = math.log(10)  # the loss of equal probabilities


@hookimpl
def experiment(run: Run) -> None:
    norms = {"with": normalisation(run), "without": nn.Identity, "only started so": OnlyStarted}
    arms: dict[str, Norm] = run.arms(norms, control="without")
    if run.wants(FEWER_STEPS, HIGHER_RATES):
        figure_1(run, arms)
    if run.wants(IMAGES):
        rates = run.pick(smoke=(0.06,), quick=(0.02, 0.06, 0.2, 0.6), full=(0.006, 0.02, 0.06, 0.2, 0.6))
        best = best_of_rates(run, arms, rates, steps=run.pick(smoke=2, quick=100, full=600))
        for arm, found in best.items():
            run.metric("error on images", found.result.error, arm=arm)
        loss = {arm: found.result.loss for arm, found in best.items()}
        run.claim(
            IMAGES,
            {
                "loss on images, with / without": loss["with"] / loss["without"],
                "loss on images, with / only started so": loss["with"] / loss["only started so"],
                "loss on images, without": loss["without"],
            },
            tuned=list(best.values()),
        )


class OnlyStarted(BatchNorm):
    """Mean and variance of the first batch for ever: starts like a normalised network, and is none.

    What normalisation does for the start alone is in here (as in Mishkin and Matas 2015, arXiv 1511.06422).
    """

    def __init__(self, features: int) -> None:
        super().__init__(features, momentum=1.0)
        self.started = False

    def forward(self, x: Batch) -> Batch:
        if not self.started:
            super().forward(x)  # with momentum 1 the averages are this batch's
            self.started = True
        self.eval()
        return super().forward(x)


class _NoVariance(BatchNorm):
    def forward(self, x: Batch) -> Batch:
        mean = self.running_mean
        if self.training:
            super().forward(x)
            mean = x.mean((0, *range(2, x.ndim)))
        return x + per_feature(self.bias - mean, x)


class _Constant(BatchNorm):
    def forward(self, x: Batch) -> Batch:
        if not self.training:
            return super().forward(x)
        super().forward(x)
        _, mean, variance = batch_norm(x, self.weight, self.bias, eps=self.eps)  # send no gradient back
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return x * per_feature(scale, x) + per_feature(self.bias - mean * scale, x)


def normalisation(run: Run) -> Norm:
    if run.without(NO_VARIANCE.name):
        return _NoVariance
    return _Constant if run.without(CONSTANT.name) else BatchNorm


# Figure 1


class Trained(NamedTuple):
    """One network at one rate.

    accuracy  step to accuracy on the digits that nothing was chosen by
    end       the loss on them at the end
    """

    accuracy: dict[int, float]
    end: float


def figure_1(run: Run, arms: Mapping[str, Norm]) -> None:
    rates = run.pick(
        smoke=(1.0, 3.0),
        quick=(0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
        full=(0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
    )
    best: dict[str, Best[Trained]] = {}
    ends: dict[str, dict[float, float]] = {arm: {} for arm in arms}
    for arm, norm in arms.items():

        def train_at(rate: float, arm: str = arm, norm: Norm = norm) -> tuple[float, Trained]:
            chosen_by, trained = train(run, arm, norm, rate)
            ends[arm][rate] = trained.end
            run.metric("end loss over rate", trained.end, step=rate, arm=arm)
            return chosen_by, trained

        best[arm] = run.sweep(arm, rates, train_at, score="what is missing to 90 %")
        for step, accuracy in best[arm].result.accuracy.items():
            run.metric("accuracy at the best rate", accuracy, step=step, arm=arm)
    run.headline("accuracy at the best rate")

    accuracy = {arm: found.result.accuracy for arm, found in best.items()}
    if run.wants(FEWER_STEPS):
        sooner = {arm: times_sooner(curve, accuracy["without"]) for arm, curve in accuracy.items()}
        run.claim(
            FEWER_STEPS,
            {
                "steps below 90 %, without / with": sooner["with"],
                "steps below 90 %, without / only started so": sooner["only started so"],
                "best accuracy, without": max(accuracy["without"].values()),
            },
            tuned=[best["with"], best["without"]],
        )
    if run.wants(HIGHER_RATES):
        controls = ("without", "only started so")
        names = [f"highest rate that works, with / {arm}" for arm in controls]
        higher = [times_higher(ends["with"], ends[arm]) for arm in controls]
        run.claim(HIGHER_RATES, dict(zip(names, higher, strict=True)))


def times_sooner(ours: Mapping[int, float], control: Mapping[int, float]) -> float | AtLeast:
    """The control's steps below 90 % over ours, from the accuracies at evenly spaced steps.

    At least that where the control is below at the end, NaN where ours is.
    """
    own, theirs = (
        min(found) * (1 + sum(reached < GOAL for reached in found.values())) for found in (ours, control)
    )
    if ours[max(ours)] < GOAL:
        return math.nan
    return AtLeast(theirs / own) if control[max(control)] < GOAL else theirs / own


def times_higher(ends: Mapping[float, float], control: Mapping[float, float]) -> float | AtLeast:
    """Ratio of the largest stable learning rates, ours to the control's.

    Both arguments map a learning rate to its final loss. It is a lower bound where our largest is the
    largest tried, and NaN where the control's is, or where an arm has no stable learning rate.
    """
    ours, theirs = (
        max((rate for rate, loss in found.items() if loss < GUESSING / 2), default=math.nan)
        for found in (ends, control)
    )
    if theirs == max(control):
        return math.nan
    return AtLeast(ours / theirs) if ours == max(ends) else ours / theirs


def network(norm: Norm, *, width: int = 100) -> nn.Sequential:
    """Figure 1's: three layers of sigmoids. The normalisation stands before the sigmoid (section 3.2)."""
    layers: list[nn.Module] = []
    for inputs in (64, width, width):
        layers += [nn.Linear(inputs, width), norm(width), nn.Sigmoid()]
    layers.append(nn.Linear(width, 10))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def train(run: Run, arm: str, norm: Norm, rate: float) -> tuple[float, Trained]:
    """One network at one rate: what it misses to 90 % on digits to choose by, in the mean over the training,
    and what it reaches on others."""
    steps, every = run.pick(smoke=20, quick=800, full=5000), 10
    images, labels = data.digits()
    (x, y), choose, judge = data.parts(
        images.flatten(1).to(run.device, run.dtype), labels.to(run.device), seed=run.seed
    )
    torch.manual_seed(run.seed)
    model = network(norm).to(run.device, run.dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    batches = run.generator("batches")
    missing: list[float] = []
    accuracy: dict[int, float] = {}
    end = math.nan
    run.phase("train")
    for step in run.steps(steps, f"{arm}, rate {rate:g}"):
        rows = torch.randint(len(x), (60,), generator=batches)
        loss = F.cross_entropy(model(x[rows]), y[rows])
        run.descend(loss, optimizer, step=step, metric=f"loss at rate {rate:g}", arm=arm)
        if (step + 1) % every == 0:
            (to_choose_by, accuracy[step + 1]), end = evaluate(model, (choose, judge))
            missing.append(max(GOAL - to_choose_by, 0.0))
    return sum(missing) / len(missing), Trained(accuracy, end)


def evaluate(model: nn.Module, parts: Sequence[tuple[Tensor, ...]]) -> tuple[list[float], float]:
    """The accuracy on each part, and the loss on the last; in one call."""
    model.eval()
    with torch.no_grad():
        scores = model(torch.cat([x for x, _ in parts])).split([len(x) for x, _ in parts])
        right = [(s.argmax(1) == y).float().mean().item() for s, (_, y) in zip(scores, parts, strict=True)]
        loss = F.cross_entropy(scores[-1], parts[-1][1]).item()
    model.train()
    return right, loss
