"""Compares deep convolutional networks with and without weight normalisation."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from readtrack.plugin import (
    UNTRAINED,
    Arm,
    Bound,
    Break,
    Claim,
    Figure,
    Run,
    Table,
    Trial,
    at_least,
    at_most,
    hookimpl,
)

from ..batchnorm import BatchNorm
from ..batchnorm.convolutions import Measures, Norm, attempt, digits, network, read_off
from .model import MeanOnlyBatchNorm, WeightNorm, axes, start_from_data, weight_norm

INVARIANCE = Claim(
    name="invariance to the length of v",
    sentence="The output of a weight-normalised layer does not depend on the length of v. Therefore the "
    "gradient of v is orthogonal to v, and gradient steps can only make v longer.",
    paper=Figure(
        "The norm of v grows with every update, because the gradient of v is orthogonal to w",
        where="section 2.1",
        read="text",
    ),
    rule=(
        Bound("largest change of the result when v is tripled", "<=", 1e-5),
        Bound("largest cosine between v and its gradient", "<=", 1e-5),
        Bound("shrunk vectors v after 20 steps of plain SGD", "==", 0.0),
    ),
    kind="identity",
    deviations="We compute in float64. The equalities hold up to rounding.",
)

CONSTANT_LENGTH = Break("constant length", "No gradient flows through the division by ‖v‖.", "near miss")
NO_START = Break("no start", "The layers are not initialised from data (section 3).", "near miss")
CLIPPED = Break(
    "same start, clipped gradients",
    "The network has ordinary weights, which start from the same data-dependent initialisation. Gradients "
    "are clipped to a norm of 1.",
    "rival",
)
CONSTANT_MEAN = Break("constant mean", "No gradient flows through the batch mean.", "near miss")
EXAMPLES_MEAN = Break(
    "mean of each example", "The mean is over the features of one example, not over the batch.", "rival"
)
CENTRED = Break(
    "centred filters",
    "No batch mean is subtracted. Instead, the mean of each filter's weights is subtracted before weight "
    "normalisation.",
    "rival",
)

STEPS = 70
DEVIATIONS = (
    "A network of seven convolutions is trained on noisy 8 × 8 digits for 70 steps of SGD with momentum on "
    "batches of 32. We compare held-out losses, with the best of five learning rates for each network. "
)

FASTER = Claim(
    name="loss with weight normalisation, without, and without from the same start",
    sentence="After 70 steps of SGD, a network with weight normalisation has a lower held-out loss than the "
    "same network without it, whether that network starts from He initialisation or from the same "
    "data-dependent initialisation.",
    paper=Figure(
        "Weight normalisation gives much of the speed-up of batch normalisation",
        where="abstract",
        read="abstract",
    ),
    rule=(
        at_most("loss", "weight norm", 0.65, over="plain", toward=1.0),
        at_most("loss", "weight norm", 0.9, over="same start", toward=1.0),
    ),
    control="the same network without weight normalisation, from He initialisation and from the "
    "data-dependent initialisation",
    control_arm="same start",
    control_reaches=(at_most("loss", "same start", 1.5),),
    after_steps=STEPS,
    breaks=(CONSTANT_LENGTH, NO_START, CLIPPED, UNTRAINED),
    chosen_on=(0, 1),
    deviations=DEVIATIONS
    + "On some seeds the network with He initialisation hardly learns in 70 steps. Therefore only the "
    "control with the data-dependent initialisation is required to have learned.",
    headline=True,
    history=(
        (
            'Until November 2026 the verdict was "weak" (3 of 5 seeds, same bounds), and there was no rival. '
            "Settings were chosen on seeds 0, 1 and 2."
        ),
    ),
)

SHARE = "share of batch norm's gain in log loss"

MEAN_ONLY = Claim(
    name="loss with mean-only batch normalisation and with weight normalisation alone",
    sentence="After 70 steps, a network with weight normalisation and mean-only batch normalisation has a "
    "lower held-out loss than a network with weight normalisation alone. It achieves most of the gain of "
    "batch normalisation.",
    paper=Figure(
        "The paper's lowest error on CIFAR-10 is 7.31 %", where="section 5.1, figure 2", read="table"
    ),
    rule=(
        at_most("loss", "mean-only", 0.8, over="weight norm", toward=1.0),
        Bound(SHARE, ">=", 0.6, direction=0.0),
    ),
    control="weight normalisation alone; also the same network with batch normalisation and without any "
    "normalisation",
    control_arm="weight norm",
    control_reaches=(at_least("loss", "plain", 1.5, over="batch norm"),),
    after_steps=STEPS,
    breaks=(CONSTANT_MEAN, EXAMPLES_MEAN, CENTRED, UNTRAINED),
    chosen_on=(0, 1),
    deviations=DEVIATIONS
    + "We compare the networks by their gain over the plain network, not by their final error.",
    history=(
        (
            'Until November 2026 the verdict was "reproduced" (5 of 5 seeds, same bounds). The only break '
            "was weight normalisation alone, which is the control. Settings were chosen on seeds 0, 1 and "
            "2."
        ),
        (
            "Until the end of November 2026 the mean of each example was the only rival, and the verdict was "
            '"reproduced" (5 of 5 seeds, same bounds). Weight normalisation with centred filters passes the '
            "rule. On seeds 7101 and 7102, its loss is 0.46 and 0.44 times that with weight normalisation "
            "alone, and its share of batch normalisation's gain is 1.10 and 0.79. Mean-only batch "
            "normalisation has 0.57 and 0.33 times the loss, and shares of 0.96 and 0.92. After four times "
            "the steps (seed 7101), centred filters have 0.55 times the loss and a share of 0.97, and "
            "mean-only batch normalisation has 0.44 times the loss and a share of 1.22. Subtracting each "
            "feature's mean in the first batch after every ReLU but the last gives 0.61 and 0.69 times the "
            "loss and shares of 0.92 and 0.59 (seeds 7101 and 7102), so it passes on one of two seeds."
        ),
    ),
)


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(INVARIANCE):
        look_at_one_layer(run)
    compare(run)


def look_at_one_layer(run: Run) -> None:
    torch.manual_seed(run.seed)
    layer = WeightNorm(nn.Linear(20, 7)).double()
    x = torch.randn(30, 20, generator=run.generator("inputs"), dtype=torch.float64)
    target = torch.randn(30, 7, generator=run.generator("targets"), dtype=torch.float64)
    before = layer(x).detach()
    with torch.no_grad():
        layer.weight_v *= 3
        change = (layer(x) - before).abs().max() / before.abs().max()
        layer.weight_v /= 3
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    cosines, lengths = [], [layer.weight_v.norm(dim=1).detach()]
    for step in run.steps(20, "one layer"):
        v = layer.weight_v.detach().clone()
        run.descend(F.mse_loss(layer(x), target), optimizer, step=step, metric="loss of one layer")
        cosines.append(F.cosine_similarity(v, layer.weight_v.grad).abs().max().item())
        lengths.append(layer.weight_v.norm(dim=1).detach())
    shrunk = torch.stack(lengths).diff(dim=0) < 0
    run.claim(
        INVARIANCE,
        {
            "largest change of the result when v is tripled": change.item(),
            "largest cosine between v and its gradient": max(cosines),
            "shrunk vectors v after 20 steps of plain SGD": float(shrunk.sum()),
        },
    )


# Convolutions

Images = Float[Tensor, "batch features height width"]
Make = Callable[[Images], nn.Sequential]  # maps images for the initialisation to a network

OUTPUT_STD = 0.1  # initial standard deviation of the logits; from the authors' later code, not in the paper


class ConstantLength(WeightNorm):
    @staticmethod
    def normalise(v: Tensor, g: Tensor) -> Tensor:
        return g * v / torch.linalg.vector_norm(v.detach(), dim=axes(v), keepdim=True)


class Centred(WeightNorm):
    """Subtracts the mean of each filter's weights before normalising them, as in Huang et al. 2017 ("Centered
    Weight Normalization", ICCV). Linear layers are not centred.
    """

    @staticmethod
    def normalise(v: Tensor, g: Tensor) -> Tensor:
        return weight_norm(v - v.mean(axes(v), keepdim=True) if v.ndim > 2 else v, g)


class ConstantMean(MeanOnlyBatchNorm):
    def forward(self, x: Images) -> Images:
        y = super().forward(x)
        return y + (x - x.detach()).mean((0, 2, 3), keepdim=True) if self.training else y


class ExamplesMean(nn.Module):
    """Subtract one example's mean over features and positions, and add a bias."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(features, 1, 1))

    def forward(self, x: Images) -> Images:
        return x - x.mean((1, 2, 3), keepdim=True) + self.bias


def plain(images: Images) -> nn.Sequential:
    return network(nn.Identity)


def batch_normalised(images: Images) -> nn.Sequential:
    return network(BatchNorm)


def apart(
    images: Images, *, layer: type[WeightNorm] = WeightNorm, norm: Norm = nn.Identity, start: bool = True
) -> nn.Sequential:
    """Apply weight normalisation to every layer with weights, initialised from the images."""
    parts = network(norm)
    net = nn.Sequential(*(layer(p) if isinstance(p, nn.Conv2d | nn.Linear) else p for p in parts))
    if start:
        start_from_data(net.to(images), images)
        with torch.no_grad():
            net[-1].weight_g *= OUTPUT_STD
            net[-1].bias *= OUTPUT_STD
    return net


def same_start(images: Images) -> nn.Sequential:
    """A plain network that initially computes the same function as `apart`."""
    started = apart(images)
    net = network(nn.Identity).to(images)
    with torch.no_grad():
        for usual, separate in zip(net, started, strict=True):
            if isinstance(separate, WeightNorm):
                usual.weight.copy_(separate.normalise(separate.weight_v, separate.weight_g))
                usual.bias.copy_(separate.bias)
    return net


class Setting(NamedTuple):
    """An arm: a function that makes a network from the first images, and the maximum gradient norm."""

    make: Make
    clip: float | None = None


mean_only = partial(apart, norm=MeanOnlyBatchNorm)
ARMS = {
    "weight norm": Setting(apart),
    "same start": Setting(same_start),
    "mean-only": Setting(mean_only),
}
YARDSTICKS = {"plain": Setting(plain), "batch norm": Setting(batch_normalised)}
BREAKS = {
    CONSTANT_LENGTH: ("weight norm", Setting(partial(apart, layer=ConstantLength))),
    NO_START: ("weight norm", Setting(partial(apart, start=False))),
    CLIPPED: ("weight norm", Setting(same_start, clip=1.0)),
    CONSTANT_MEAN: ("mean-only", Setting(partial(apart, norm=ConstantMean))),
    EXAMPLES_MEAN: ("mean-only", Setting(partial(apart, norm=ExamplesMean))),
    CENTRED: ("mean-only", Setting(partial(apart, layer=Centred))),
}
RATES = (0.006, 0.02, 0.06, 0.2, 0.6)


def compare(run: Run) -> None:
    run.compare(
        FASTER,
        MEAN_ONLY,
        arms={name: Arm(setting) for name, setting in ARMS.items()},
        yardsticks={name: Arm(setting) for name, setting in YARDSTICKS.items()},
        attempt=partial(train, steps=run.pick(smoke=2, quick=STEPS, full=600)),
        read=read_off,
        derive=share,
        grid=run.pick(smoke=(0.02,), quick=RATES, full=RATES),
        score="validation loss",
        breaks={one.name: {arm: Arm(setting)} for one, (arm, setting) in BREAKS.items()},
        world=digits(run),
    )
    run.headline("validation loss over rate")


def train(at: Trial, setting: Setting, rate: float, *, steps: int) -> tuple[float, Measures]:
    return attempt(at, setting.make, rate, steps=steps, clip=setting.clip)


def share(table: Table) -> dict[str, dict[str, float]]:
    """The gain of mean-only batch normalisation over the plain network, as a fraction of batch
    normalisation's gain."""
    losses = {row: value for row, value in table.of("loss").items() if isinstance(value, float)}
    if "mean-only" not in losses:
        return {}
    gain, whole = (math.log(losses["plain"] / losses[row]) for row in ("mean-only", "batch norm"))
    return {"": {SHARE: gain / whole if whole else math.nan}}
