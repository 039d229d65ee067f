"""A stylisation network with the statistics of the batch, and with those of each picture."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from readtrack import data
from readtrack.plugin import Bound, Break, Claim, Figure, Run, hookimpl

from ..batchnorm import BatchNorm
from ..layernorm.invariances import IN_USE, KEPT, changes, show
from .model import InstanceNorm
from .stylisation import Norm, PerceptualLoss, Pictures, generator, with_contrast

INVARIANCE = Claim(
    name="each picture alone",
    sentence="The layer does not see the scale of a picture, nor that of each of its channels, nor the other "
    "pictures; training and use are the same.",
    paper=Figure("Instance-specific contrast is taken off.", where="section 2", read="text"),
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
    name="contrast",
    sentence="What a network with instance normalisation draws hardly changes with a picture's contrast.",
    paper=Figure(
        "The contrast of the content should not show in the result.", where="section 2", read="text"
    ),
    rule=(Bound("change when contrast falls to a fifth, instance norm", "<=", 0.05),),
    kind="theorem",
    control="batch normalisation",
    deviations="In the mean over pixels in [0, 1]; up to the small number under the root.",
)

WHOLE_BATCH = Break("whole batch", "The statistics are those of the batch, and in use averages of them.")

STYLISATION = Claim(
    name="stylisation",
    sentence="Changing batch statistics for those of the single picture makes a stylisation network better.",
    paper=Figure(
        "A significant qualitative improvement: pictures, no number", where="abstract", read="abstract"
    ),
    rule=(Bound("loss, instance norm / batch norm", "<=", 0.85, direction=1.0, ratio=True),),
    control="the same generator with batch normalisation, at the best of the same rates",
    control_reaches=(Bound("loss, batch norm / picture as it is", "<=", 0.85, ratio=True),),
    breaks=(WHOLE_BATCH,),
    shortcuts=("loss, instance norm / batch norm with the batch's statistics in use",),
    chosen_on=(0, 1),
    deviations="A small generator on crops of one photograph, 32 × 32, in the style of another, 80 steps of "
    "4; random filters instead of VGG; contrasts are drawn from 0.2 to 1, judged at 0.2, 0.5 and 1 on crops "
    "from elsewhere in the photograph. Content is compared without its contrast, as the paper argues: where "
    "the loss asks for the content's contrast, batch normalisation was ahead (0.97 against 1.26 on seed 0).",
)

SIDE = 32  # pixels of a crop
CONTRASTS = (0.2, 0.5, 1.0)


class Drawn(NamedTuple):
    """What came of one training.

    loss      on the crops to judge by, over all contrasts; `batch` with the batch's own statistics in use
    change    in a result when its picture's contrast falls from 1 to a fifth, mean over pixels
    pictures  two of the results, at a contrast of 0.2 and of 1
    """

    loss: float
    batch: float
    change: float
    pictures: Pictures


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(INVARIANCE):
        check_invariances(run)
    if run.wants(STYLISATION, CONTRAST):
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
    """Crops of the temple: to train on, choose by and judge by from three parts of it; and a style."""

    def __init__(self, run: Run) -> None:
        temple, flower = data.photographs(128).to(run.device, run.dtype)
        draw = run.generator("parts")
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
    loss = PerceptualLoss(crops.style)
    layer: Norm = BatchNorm if run.without(WHOLE_BATCH.name) else InstanceNorm
    arms = run.arms({"instance norm": layer, "batch norm": BatchNorm}, control="batch norm")
    rates = run.pick(smoke=(0.01,), quick=(0.001, 0.003, 0.01, 0.03), full=(0.001, 0.003, 0.01, 0.03))
    best = {
        arm: run.sweep(arm, rates, partial(train, run, arm, norm, crops, loss), score="validation loss")
        for arm, norm in arms.items()
    }
    run.headline("validation loss over rate")
    instance, batch = (best[arm].result for arm in ("instance norm", "batch norm"))
    content = crops.draw(crops.judge, 32, run.generator("crops to judge by"))
    with torch.no_grad():
        as_it_is = loss(content, content).mean().item()
    for arm, found in best.items():
        run.metric("loss of the stylisation", found.result.loss, arm=arm)
        run.metric("change when contrast falls to a fifth", found.result.change, arm=arm)
    run.metric("loss of the stylisation", as_it_is, arm="picture as it is")
    if run.wants(STYLISATION):
        values = {
            "loss, instance norm / batch norm": instance.loss / batch.loss,
            "loss, batch norm / picture as it is": batch.loss / as_it_is,
            "loss, instance norm / batch norm with the batch's statistics in use": instance.loss
            / batch.batch,
        }
        run.claim(STYLISATION, values, tuned=list(best.values()))
    if run.wants(CONTRAST):
        run.claim(CONTRAST, {"change when contrast falls to a fifth, instance norm": instance.change})
    two = torch.cat([with_contrast(content[:2], torch.full((2,), c).to(content)) for c in (0.2, 1.0)])
    style = torch.nn.functional.interpolate(crops.style, size=(SIDE, SIDE), mode="area")
    rows = [torch.cat((style, pictures)) for pictures in (two, batch.pictures, instance.pictures)]
    run.image(
        "stylised",
        torch.cat(rows),
        columns=5,
        caption="Left the style. Then two crops at a contrast of 0.2 and of 1: as they are, drawn with batch "
        "normalisation, drawn with instance normalisation.",
    )


def train(
    run: Run, arm: str, norm: Norm, crops: Crops, loss: PerceptualLoss, rate: float
) -> tuple[float, Drawn]:
    """One generator at one rate: its loss on crops to choose by, and what it makes of those to judge by."""
    torch.manual_seed(run.seed)
    network = generator(norm).to(run.device, run.dtype)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    steps, size = run.pick(smoke=2, quick=80, full=1000), 4
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    draw = run.generator("crops to train on")
    run.phase("train")
    for step in run.steps(steps, f"{arm}, rate {rate:g}"):
        contrast = (torch.rand(size, generator=draw) * 0.8 + 0.2).to(crops.train)
        content = with_contrast(crops.draw(crops.train, size, draw), contrast)
        run.descend(
            loss(network(content), content).mean(),
            optimizer,
            step=step,
            metric=f"loss at rate {rate:g}",
            arm=arm,
        )
        schedule.step()
    run.phase("evaluate")
    network.eval()
    with torch.no_grad():
        chosen_by, _ = judged(
            network, loss, crops.draw(crops.choose, 32, run.generator("crops to choose by"))
        )
        content = crops.draw(crops.judge, 32, run.generator("crops to judge by"))
        found, drawn = judged(network, loss, content)
        network.train()
        batch, _ = judged(network, loss, content)
        change = (drawn[0] - drawn[-1]).abs().mean().item()
    return chosen_by, Drawn(found, batch, change, torch.cat((drawn[0][:2], drawn[-1][:2])))


def judged(
    network: Callable[[Tensor], Tensor], loss: PerceptualLoss, content: Pictures
) -> tuple[float, list[Pictures]]:
    """The mean loss over the contrasts, and what was drawn at each."""
    losses, drawn = [], []
    for contrast in CONTRASTS:
        picture = with_contrast(content, torch.full((len(content),), contrast).to(content))
        drawn.append(network(picture))
        losses.append(loss(drawn[-1], picture).mean().item())
    return sum(losses) / len(losses), drawn
