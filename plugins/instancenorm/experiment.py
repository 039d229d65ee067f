"""Compares stylisation networks with batch normalisation and with instance normalisation."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from readtrack import data
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
    at_most,
    hookimpl,
)

from ..batchnorm import BatchNorm
from ..layernorm.invariances import IN_USE, KEPT, changes, show
from .model import InstanceNorm
from .stylisation import Norm, PerceptualLoss, Pictures, generator, standardised, with_contrast

INVARIANCE = Claim(
    name="independence of other images",
    seeded_as="each picture alone",
    sentence="Instance normalisation's output is invariant to the scale of an image and of each of its "
    "channels. It does not depend on the other images of the batch, and is the same in training and at "
    "inference.",
    paper=Figure("Instance-specific contrast is removed.", where="section 2", read="text"),
    rule=(
        Bound("instance norm: other examples", "==", 0.0),
        Bound(f"instance norm: {IN_USE}", "==", 0.0),
        Bound("instance norm: this example × 3", "<=", KEPT),
        Bound("instance norm: one unit's weights × 3", "<=", KEPT),
        Bound("instance norm: all weights + a vector", ">=", 0.1),
        Bound("batch norm: this example × 3", ">=", 0.1),
    ),
    kind="identity",
    control="batch normalisation",
)

CONTRAST = Claim(
    name="invariance to contrast",
    seeded_as="contrast",
    sentence="The output of a stylisation network with instance normalisation hardly changes with the "
    "contrast of its input image.",
    paper=Figure("The result should not depend on the content's contrast.", where="section 2", read="text"),
    rule=(
        at_most(
            "change", "instance norm", 0.05, called="change when contrast falls to a fifth, instance norm"
        ),
    ),
    kind="theorem",
    control="batch normalisation",
    deviations="The change is averaged over pixels with values in [0, 1]. It is not exactly zero, because of "
    "the ε under the root.",
)

WHOLE_BATCH = Break(
    "whole batch",
    "The statistics are taken over the batch in training, and their running averages are used in evaluation.",
)
ALL_CHANNELS = Break(
    "all channels at once",
    "Each image is normalised by its own statistics, but all channels share one mean and variance.",
    "near miss",
)
INPUT_ALONE = Break(
    "the input alone",
    "The network has batch normalisation. The image's contrast is removed once, before the network.",
    "rival",
)

SETTING = (
    "A small generator is trained for 80 steps, on batches of four 32 × 32 crops from one photograph. "
    "Another photograph is the style image. The perceptual loss uses random filters instead of VGG. "
    "Contrasts are sampled between 0.2 and 1. The test uses contrasts of 0.2, 0.5 and 1, on crops from "
    "another part of the photograph. The paper compares images by eye. "
)


def better(suffix: str) -> Bound:
    return at_most(
        "loss",
        "instance norm",
        0.85,
        over="batch norm",
        toward=1.0,
        called=f"loss{suffix}, instance norm / batch norm",
    )


def learned(suffix: str) -> Bound:
    return at_most(
        "loss",
        "batch norm",
        0.85,
        over="picture as it is",
        called=f"loss{suffix}, batch norm / picture as it is",
    )


STYLISATION = Claim(
    name="stylisation",
    sentence="With the usual style and content loss, a stylisation network with instance normalisation "
    "reaches a lower loss than one with batch normalisation.",
    paper=Figure("The images improve significantly. No number is given", where="abstract", read="abstract"),
    rule=(better(""),),
    control="the same generator with batch normalisation, at its best learning rate from the same grid",
    control_arm="batch norm",
    control_reaches=(learned(""),),
    breaks=(WHOLE_BATCH, ALL_CHANNELS, INPUT_ALONE, UNTRAINED),
    shortcuts=("loss, instance norm / batch norm with the batch's statistics in use",),
    chosen_on=(0, 1),
    deviations=SETTING + "The content loss compares the features without standardising them.",
    headline=True,
    history=(
        (
            "Until November 2026 this claim used a content loss on standardised features, and was "
            "reproduced. The paper does not name such a loss."
        ),
    ),
)

WITHOUT_CONTRAST = Claim(
    name="stylisation without the content's contrast",
    sentence="With a loss that is independent of the content's contrast, a stylisation network with "
    "instance normalisation reaches a lower loss than one with batch normalisation.",
    paper=Figure(
        "The result should in general not depend on the content's contrast.", where="section 2", read="text"
    ),
    rule=(better(" without contrast"),),
    control="the same generator with batch normalisation, at its best learning rate from the same grid",
    control_arm="batch norm",
    control_reaches=(learned(" without contrast"),),
    breaks=(WHOLE_BATCH, ALL_CHANNELS, INPUT_ALONE, UNTRAINED),
    chosen_on=(0, 1),
    deviations=SETTING
    + "The content loss compares standardised features. The paper argues for standardised features and "
    "does not say that it used them. With them, the loss ignores exactly the contrast that the layer "
    "removes.",
)

SIDE = 32  # side of a crop in pixels
CONTRASTS = (0.2, 0.5, 1.0)
RATES = (0.001, 0.003, 0.01, 0.03)


class Recipe(NamedTuple):
    """A generator's normalisation, and whether to standardise its input first."""

    norm: Norm
    standardised: bool = False


class Standardise(nn.Module):
    """Gives each channel of each image mean 0 and variance 1."""

    def forward(self, pictures: Pictures) -> Pictures:
        return standardised(pictures)


@dataclass(frozen=True)
class Studio:
    """Training crops, the loss, and the validation and test crops, the same for all arms."""

    crops: "Crops"
    loss: PerceptualLoss
    choose: Pictures
    judge: Pictures


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(INVARIANCE):
        check_invariances(run)
    if run.wants(STYLISATION, CONTRAST, WITHOUT_CONTRAST):
        compare(run)


def check_invariances(run: Run) -> None:
    norms = {
        "none": nn.Identity,
        "batch norm": partial(BatchNorm, eps=0.0),
        "instance norm": partial(InstanceNorm, eps=0.0),
    }
    rows = {name: changes(run, norm) for name, norm in norms.items()}
    show(run, rows)
    values = {f"{name}: {change}": value for name, row in rows.items() for change, value in row.items()}
    run.claim(INVARIANCE, {metric: values[metric] for metric in INVARIANCE.metrics})


class Crops:
    """Training, validation and test crops from three parts of a photograph of a temple, and a style image."""

    def __init__(self, run: Run) -> None:
        temple, flower = data.photographs(128).to(run.device, run.dtype)
        draw = run.data("parts", "world")
        order = torch.randperm(3, generator=draw).tolist()
        parts = temple.split(temple.shape[2] // 3, 2)
        self.train, self.choose, self.judge = (parts[i] for i in order)
        self.style = flower[None, :, 32:96, 64:128]  # within the blossom

    def draw(self, part: Float[Tensor, "3 rows columns"], count: int, generator: torch.Generator) -> Pictures:
        rows, columns = part.shape[1:]
        tops = torch.randint(rows - SIDE + 1, (count,), generator=generator).tolist()
        lefts = torch.randint(columns - SIDE + 1, (count,), generator=generator).tolist()
        return torch.stack([part[:, i : i + SIDE, j : j + SIDE] for i, j in zip(tops, lefts, strict=True)])


def compare(run: Run) -> None:
    crops = Crops(run)
    torch.manual_seed(run.seed)
    loss = PerceptualLoss(crops.style, standardise=False)
    torch.manual_seed(run.seed)
    without_contrast = PerceptualLoss(crops.style, standardise=True)
    studio = Studio(
        crops,
        loss,
        crops.draw(crops.choose, 32, run.data("crops to choose by", "choose")),
        crops.draw(crops.judge, 32, run.data("crops to judge by", "judge")),
    )
    run.headline("validation loss over rate")
    table = try_norms(run, studio, "", STYLISATION, CONTRAST)
    try_norms(run, replace(studio, loss=without_contrast), " without contrast", WITHOUT_CONTRAST)
    if table.sweeps:
        draw(run, studio, {arm: sweep.chosen for arm, sweep in table.sweeps.items()})


def try_norms(run: Run, studio: Studio, suffix: str, *claims: Claim) -> Table:
    """Compare both arms on one loss. `suffix` is appended to the names of the curves."""
    with torch.no_grad():
        as_it_is = studio.loss(studio.judge, studio.judge).mean().item()
    table = run.compare(
        *claims,
        arms={"instance norm": Arm(Recipe(InstanceNorm)), "batch norm": Arm(Recipe(BatchNorm))},
        attempt=partial(train, suffix),
        read=partial(read_off, suffix),
        grid=run.pick(smoke=RATES[2:3], quick=RATES, full=RATES),
        score=f"validation loss{suffix}",
        references={"picture as it is": {"loss": as_it_is}},
        derive=in_use,
        breaks={
            WHOLE_BATCH.name: {"instance norm": Arm(Recipe(BatchNorm))},
            ALL_CHANNELS.name: {"instance norm": Arm(Recipe(partial(nn.GroupNorm, 1)))},
            INPUT_ALONE.name: {"instance norm": Arm(Recipe(BatchNorm, standardised=True))},
        },
        world=studio,
    )
    if table.sweeps:
        run.metric(f"loss of the stylisation{suffix}", as_it_is, arm="picture as it is")
    return table


def in_use(table: Table) -> dict[str, dict[str, float]]:
    """Ratio of losses: instance normalisation to batch normalisation with batch statistics at inference."""
    found = table["instance norm", "loss"] / table["batch norm", "loss, training mode"]
    return {"": {"loss, instance norm / batch norm with the batch's statistics in use": found}}


def train(suffix: str, at: Trial, recipe: Recipe, rate: float) -> tuple[float, nn.Module]:
    """Train a generator and return the loss on validation crops and the network."""
    run, crops, loss = at.run, at.world.crops, at.world.loss
    network = generator(recipe.norm).to(run.device, run.dtype)
    if recipe.standardised:
        network.insert(0, Standardise())
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    steps, size = run.pick(smoke=2, quick=80, full=1000), 4
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    drawn = at.generator("crops to train on")
    run.phase("train")
    for step in at.steps(steps, f"{at.name}, rate {rate:g}", state=(network, optimizer, schedule)):
        contrast = (torch.rand(size, generator=drawn) * 0.8 + 0.2).to(crops.train)
        content = with_contrast(crops.draw(crops.train, size, drawn), contrast)
        found = loss(network(content), content).mean()
        at.descend(found, optimizer, step=step, metric=f"loss{suffix} at rate {rate:g}")
        schedule.step()
    run.phase("evaluate")
    network.eval()
    return judged(network, loss, at.world.choose)[0], network


@torch.no_grad()
def read_off(suffix: str, at: Trial, found: Sweep[nn.Module]) -> dict[str, float]:
    """Test loss over all contrasts, with running and with batch statistics, and the mean change of an output
    pixel when the input's contrast falls from 1 to 0.2."""
    network, studio = found.chosen, at.world
    loss, drawn = judged(network, studio.loss, studio.judge)
    change = (drawn[0] - drawn[-1]).abs().mean().item()
    network.train()
    batch, _ = judged(network, studio.loss, studio.judge)
    network.eval()
    at.metric(f"loss of the stylisation{suffix}", loss)
    at.metric(f"change when contrast falls to a fifth{suffix}", change)
    return {"loss": loss, "loss, training mode": batch, "change": change}


@torch.no_grad()
def draw(run: Run, studio: Studio, networks: dict[str, nn.Module]) -> None:
    """Save two crops at two contrasts, with the output of each network."""
    two = torch.cat(
        [with_contrast(studio.judge[:2], torch.full((2,), c).to(studio.judge)) for c in (0.2, 1.0)]
    )
    style = torch.nn.functional.interpolate(studio.crops.style, size=(SIDE, SIDE), mode="area")
    made = [two, networks["batch norm"](two), networks["instance norm"](two)]
    run.image(
        "stylised",
        torch.cat([torch.cat((style, pictures)) for pictures in made]),
        columns=["style", *["contrast 0.2"] * 2, *["contrast 1"] * 2],
        rows=["crop", "batch norm", "instance norm"],
        caption="Two crops at two contrasts, and the outputs of the networks with each normalisation.",
    )


@torch.no_grad()
def judged(
    network: Callable[[Tensor], Tensor], loss: PerceptualLoss, content: Pictures
) -> tuple[float, list[Pictures]]:
    """The mean loss over the contrasts, and the outputs at each contrast."""
    losses, drawn = [], []
    for contrast in CONTRASTS:
        picture = with_contrast(content, torch.full((len(content),), contrast).to(content))
        drawn.append(network(picture))
        losses.append(loss(drawn[-1], picture).mean().item())
    return sum(losses) / len(losses), drawn
