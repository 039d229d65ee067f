"""Computes a table of invariances, and compares group and batch normalisation on small batches."""

from functools import partial

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
    Trial,
    at_most,
    hookimpl,
)

from ..batchnorm import BatchNorm, per_feature
from ..batchnorm.convolutions import Measures, Norm, attempt, digits, network, read_off
from ..instancenorm import InstanceNorm
from ..layernorm.invariances import IN_USE, KEPT, changes, show
from .model import Batch, GhostBatchNorm, GroupNorm

ALONE = Claim(
    name="independence of other examples",
    sentence="Group normalisation's output for an example does not depend on other examples, and it is "
    "computed in the same way in training and evaluation. Group normalisation partly preserves the scale of "
    "a channel, which instance normalisation removes.",
    paper=Figure("The computation is independent of batch sizes.", where="abstract", read="abstract"),
    rule=(
        Bound("group norm: other examples", "==", 0.0),
        Bound(f"group norm: {IN_USE}", "==", 0.0),
        Bound("group norm: this example × 3", "<=", KEPT),
        Bound("group norm: one unit's weights × 3", ">=", 0.1),
        Bound("instance norm: one unit's weights × 3", "<=", KEPT),
        Bound("batch norm: other examples", ">", 0.1),
        Bound("largest change when a batch of 32 is taken two by two", "<=", 1e-5),
    ),
    kind="identity",
    control="batch and instance normalisation",
)

OF_TWO = Break(
    "statistics of two for all",
    "All 32 examples are normalised by the statistics of two of them.",
    "near miss",
)
NO_DIVISION = Break(
    "no division",
    "Group normalisation only subtracts each group's mean. It does not divide by the standard deviation.",
    "near miss",
)
ONE_GROUP = Break("one group", "All channels form one group, as in layer normalisation.", "rival")

STEPS = 80
DEVIATIONS = (
    "A network of seven convolutions is trained on noisy 8 × 8 digits for 80 steps with batches of 32. Only "
    "the statistics are computed over parts of the batch, as on several devices. The loss is measured on "
    "held-out digits, six in ten of all, and training sees 539 digits. Each network is at the best of five "
    "learning rates. "
)

FEW_EXAMPLES = Claim(
    name="loss of batch normalisation, statistics of 32 against 2",
    sentence="After 80 steps, a network with batch normalisation over 32 examples has a held-out loss at "
    "least 13 % lower than one with batch normalisation over 2 examples.",
    paper=Figure(
        "ResNet-50's error on ImageNet is 23.6 % with 32 images per device and 34.7 % with 2",
        where="table 2 and figure 1",
        read="table",
    ),
    rule=(at_most("loss", "over 32", 0.87, over="over 2", toward=1.0),),
    control="batch normalisation over pairs of examples, with the same batches, steps and learning rates",
    control_arm="over 2",
    control_reaches=(at_most("error", "over 2", 0.3),),
    after_steps=STEPS,
    breaks=(OF_TWO, UNTRAINED),
    no_rival="The claim compares batch normalisation with itself, not with another method.",
    chosen_on=(0, 1),
    deviations=DEVIATIONS,
    history=(
        (
            'Until November 2026 the verdict was "reproduced" (5 of 5 seeds). The bound was the same: the '
            "loss over 2 examples had to be at least 1.15 times as high. The sentence did not state the "
            "number of steps. In that set-up, the two losses were equal after 300 steps."
        ),
        (
            'Until 27 November 2026 the verdict was "not judged" (same bound): the test was on three in ten '
            "of the digits, too few for this bound on 2 of 5 seeds. The condition tested the network with 32 "
            "examples instead of the control, and the near miss, statistics of 4, passed the rule."
        ),
    ),
)

SMALL_BATCHES = Claim(
    name="loss of group normalisation against batch normalisation with statistics of 2",
    sentence="After 80 steps, a network with group normalisation has a held-out loss at least 10 % lower "
    "than one with batch normalisation over two examples.",
    paper=Figure(
        "With 2 images per device, ResNet-50's error on ImageNet is 10.6 points lower than with batch "
        "normalisation",
        where="abstract",
        read="abstract",
    ),
    rule=(at_most("loss", "groups", 0.9, over="over 2", toward=1.0),),
    control="batch normalisation over pairs of examples, with the same batches, steps and learning rates",
    control_arm="over 2",
    control_reaches=(at_most("error", "over 2", 0.3),),
    after_steps=STEPS,
    breaks=(NO_DIVISION, ONE_GROUP, UNTRAINED),
    chosen_on=(0, 1),
    deviations=DEVIATIONS
    + "There are two channels per group, so that the widest layers, which have 64 channels, have 32 groups "
    "as in the paper.",
    headline=True,
    history=(
        (
            'Until November 2026 the verdict was "not reproduced" (0 of 5 seeds, same bound). There were '
            "eight channels per group and thus two to eight groups. The paper has 32 groups."
        ),
        (
            "Until 27 November 2026 the test was on three in ten of the digits, and the verdict was the "
            'same: "not reproduced" (0 of 5 seeds, same bound).'
        ),
    ),
)

CHANNELS = 2  # per group
CURVE = "loss over examples in a statistic"


def grouped(features: int) -> nn.Module:
    return GroupNorm(features // CHANNELS, features)


def over(examples: int) -> Norm:
    return partial(GhostBatchNorm, examples=examples)


class _NoDivision(GroupNorm):
    def forward(self, x: Batch) -> Batch:
        grouped = x.unflatten(1, (self.groups, -1)).flatten(2)
        centred = (grouped - grouped.mean(2, keepdim=True)).view_as(x)
        return centred * per_feature(self.weight, x) + per_feature(self.bias, x)


def undivided(features: int) -> nn.Module:
    return _NoDivision(features // CHANNELS, features)


class _OfTwo(BatchNorm):
    """Batch normalisation by the statistics of the first two examples. Batches are in random order."""

    def forward(self, x: Batch) -> Batch:
        if not self.training:
            return super().forward(x)
        two = x[:2].transpose(0, 1).flatten(1)
        variance, mean = torch.var_mean(two, 1, correction=0)
        unbiased = variance.detach() * two.shape[1] / (two.shape[1] - 1)
        for average, newest in ((self.running_mean, mean.detach()), (self.running_var, unbiased)):
            average.lerp_(newest.to(average.dtype), self.momentum)
        scale = self.weight / (variance + self.eps).sqrt()
        return (x - per_feature(mean, x)) * per_feature(scale, x) + per_feature(self.bias, x)


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(ALONE):
        check_invariances(run)
    compare(run)


def check_invariances(run: Run) -> None:
    norms = {
        "none": nn.Identity,
        "batch norm": partial(BatchNorm, eps=0.0),
        "instance norm": partial(InstanceNorm, eps=0.0),
        "one group": partial(GroupNorm, 1, eps=0.0),
        "group norm": partial(GroupNorm, 4, eps=0.0),
    }
    rows = {name: changes(run, norm) for name, norm in norms.items()}
    show(run, rows)
    values = {f"{name}: {change}": value for name, row in rows.items() for change, value in row.items()}
    layer = grouped(64).to(run.device, torch.float32)
    x = torch.randn(32, 64, 4, 4, generator=run.generator("maps")).to(run.device)
    with torch.no_grad():
        apart = torch.cat([layer(two) for two in x.split(2)])
        values["largest change when a batch of 32 is taken two by two"] = (
            (layer(x) - apart).abs().max().item()
        )
    run.claim(ALONE, {metric: values[metric] for metric in ALONE.metrics})


def train(at: Trial, norm: Norm, rate: float, *, steps: int) -> tuple[float, Measures]:
    return attempt(at, lambda _: network(norm), rate, steps=steps)


def compare(run: Run) -> None:
    norms: dict[str, Norm] = {"over 32": BatchNorm, "over 2": over(2), "groups": grouped}
    rates = (0.02, 0.06, 0.2, 0.6, 2.0)
    table = run.compare(
        FEW_EXAMPLES,
        SMALL_BATCHES,
        arms={name: Arm(norm) for name, norm in norms.items()},
        attempt=partial(train, steps=run.pick(smoke=2, quick=STEPS, full=600)),
        read=read_off,
        grid=run.pick(smoke=(0.06,), quick=rates, full=rates),
        score="validation loss on images",
        yardsticks={"over 8": Arm(over(8))},
        breaks={
            OF_TWO.name: {"over 32": Arm(_OfTwo)},
            NO_DIVISION.name: {"groups": Arm(undivided)},
            ONE_GROUP.name: {"groups": Arm(partial(GroupNorm, 1))},
        },
        world=digits(run, judge=0.6),  # with fewer, the ratio's standard error is too large
    )
    # Figure 1 plots the loss against the number of examples per statistic.
    losses = {row: value for row, value in table.of("loss").items() if isinstance(value, float)}
    for examples in (2, 8, 32):
        for arm, row in (("batch norm", f"over {examples}"), ("group norm", "groups")):
            if row in losses:
                run.metric(CURVE, losses[row], step=examples, arm=arm)
    run.headline(CURVE)
