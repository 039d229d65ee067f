"""What joins and deformation are worth with thirty labelled images."""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl

from ..fcn.task import BRIGHTNESS, Labelled, labelled
from .model import UNet, border_weights, deformed

NO_JOINS = Break("no joins", "The network called U-Net has no joins.")
RIGID = Break("rigid", "No image is deformed.")

SIZES = Claim(
    name="sizes",
    sentence="The network of figure 1 has 23 convolutions and makes 388 × 388 scores of 572 × 572 pixels.",
    paper=Figure(
        "572 × 572 to 388 × 388; 23 convolutional layers", where="figure 1, section 2", read="secondary"
    ),
    rule=(Bound("side of the result", "==", 388), Bound("convolutions", "==", 23)),
    kind="identity",
)

DEVIATIONS = (
    "Thirty pictures of 16 × 16 with a digit and half of another one on photographs; the digit's ink is to "
    "be found. Three levels of 12, 24 and 48 maps, padded; Adam for 320 steps of 10. Judged by intersection "
    "over union on 1,500 new pictures."
)

JOINS = Claim(
    name="joins",
    sentence="From thirty images a network with joins between its paths segments better than one without.",
    paper=Figure(
        "92 % on PhC-U373, 77.5 % on DIC-HeLa; there is no network without joins",
        where="section 4, table 2",
        read="text",
    ),
    rule=(Bound("IoU, U-Net - no joins", ">=", 0.08, direction=0.02),),
    control="the same network without joins, with more weights; its best rate of the same four",
    control_reaches=(Bound("IoU, no joins", ">=", 0.2),),
    breaks=(NO_JOINS,),
    chosen_on=(0, 1),
    deviations=DEVIATIONS,
)

DEFORMS = Claim(
    name="deformation",
    sentence="Bending the thirty images anew at every step makes the network segment new ones better.",
    paper=Figure("The key to training with very few images; no number", where="section 3.1", read="text"),
    rule=(Bound("IoU, U-Net - rigid", ">=", 0.02, direction=0.005),),
    control="the same network on the images as they are; its best rate of the same four",
    control_reaches=(Bound("IoU, rigid", ">=", 0.3),),
    breaks=(RIGID,),
    chosen_on=(0, 1, 2),
    deviations=DEVIATIONS + " Displacements of one pixel in the standard deviation.",
)


class Arm(NamedTuple):
    joins: bool
    std: float


ARMS = {"U-Net": Arm(True, 1.0), "no joins": Arm(False, 1.0), "rigid": Arm(True, 0.0)}
RATES = (0.002, 0.006, 0.018, 0.054)
OVER_STEPS = "IoU over steps"
WIDTHS = (12, 24, 48)


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZES):
        count(run)
    if run.wants(JOINS, DEFORMS):
        compare(run)
        run.headline(OVER_STEPS)


def count(run: Run) -> None:
    run.phase("setup")
    with torch.device("meta"):
        network = UNet()
        side = network(torch.empty(1, 1, 572, 572)).shape[-1]
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)]
    run.metric("parameters, millions", sum(w.numel() for w in network.parameters()) / 1e6)
    run.claim(SIZES, {"side of the result": side, "convolutions": len(layers)})


class Learnt(NamedTuple):
    network: UNet
    course: list[tuple[int, float]]  # steps done, and the IoU on a hundred pictures of `choose`


@torch.no_grad()
def iou(network: UNet, held_out: Labelled) -> float:
    """Of the ink that is found with the ink that is there, over all pictures."""
    found = torch.cat([network(x)[:, 0] > 0 for x in held_out.x.split(250)])
    truth = held_out.y > 0
    return ((found & truth).sum() / (found | truth).sum().clamp(min=1)).item()


def compare(run: Run) -> None:
    known, choose, judge = (
        labelled(run, part, run.pick(smoke=30, quick=count, full=count), fragments=1)
        for part, count in (("train", 30), ("choose", 500), ("judge", 1500))
    )
    given = {
        name: Arm(arm.joins and not run.without(NO_JOINS.name), 0.0 if run.without(RIGID.name) else arm.std)
        for name, arm in ARMS.items()
    }
    rates = run.pick(smoke=RATES[1:2], quick=RATES, full=RATES)
    learnt: dict[Arm, Best[Learnt]] = {}
    ious: dict[Arm, float] = {}

    def best(name: str, arms: dict[str, Arm]) -> Best[Learnt]:
        arm = arms[name]
        if arm not in learnt:
            call = partial(train, run, name, arm, known, choose)
            learnt[arm] = run.sweep(name, rates, call, score="IoU on choose", keep="highest")
            ious[arm] = iou(learnt[arm].result.network, judge)
            run.metric("IoU", ious[arm], arm=name)
            for step, value in learnt[arm].result.course:
                run.metric(OVER_STEPS, value, step=step, arm=name)
        return learnt[arm]

    networks = {}
    for claim, control in ((JOINS, "no joins"), (DEFORMS, "rigid")):
        if run.wants(claim):
            arms = run.arms(given, control=control)
            ours, theirs = best("U-Net", arms), best(control, arms)
            networks |= {"U-Net": ours.result.network, control: theirs.result.network}
            values = {
                f"IoU, U-Net - {control}": ious[arms["U-Net"]] - ious[arms[control]],
                f"IoU, {control}": ious[arms[control]],
            }
            run.claim(claim, values, tuned=[ours, theirs])
    run.axes(OVER_STEPS, x="steps", y="IoU on a hundred new pictures")
    draw(run, networks, known, judge)


def train(
    run: Run, name: str, arm: Arm, known: Labelled, choose: Labelled, rate: float
) -> tuple[float, Learnt]:
    torch.manual_seed(run.seed)
    network = UNet(channels=3, classes=1, widths=WIDTHS, padding=1, joins=arm.joins)
    network = network.to(run.device, run.dtype)
    steps = run.pick(smoke=2, quick=320, full=2000)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1, (s + 1) / 10) * (1 - s / steps))
    batches, bends = run.generator("batches"), run.generator("bends")
    few, course = Labelled(choose.x[:100], choose.y[:100]), []
    run.phase("train")
    for step in run.steps(steps, f"{name}, rate {rate:g}"):
        rows = torch.randint(len(known.x), (10,), generator=batches)
        x, y = known.x[rows], (known.y[rows] > 0).long()
        if arm.std:
            x, y = deformed(x, y, bends, std=arm.std)
        loss = F.binary_cross_entropy_with_logits(network(x)[:, 0], y.to(x))
        run.descend(loss, optimizer, step=step, metric=f"loss at rate {rate:g}", arm=name)
        schedule.step()
        if (step + 1) % max(steps // 8, 1) == 0:
            course.append((step + 1, iou(network, few)))
    run.phase("evaluate")
    return iou(network, choose), Learnt(network, course)


def large(images: Tensor) -> Tensor:
    return images.float().cpu().repeat_interleave(4, 2).repeat_interleave(4, 3)


def grey(masks: Tensor) -> Tensor:
    return masks[:, None].expand(-1, 3, -1, -1).float().cpu()


@torch.no_grad()
def draw(run: Run, networks: dict[str, UNet], known: Labelled, judge: Labelled) -> None:
    """The thirty images; new ones and what each network finds; images bent; weights between two objects."""
    run.image("all that is known", large(known.x + BRIGHTNESS), columns=6, caption="The thirty images.")
    x, y = judge.x[:4], judge.y[:4]
    rows = [x.cpu() + BRIGHTNESS, *(grey(network(x)[:, 0] > 0) for network in networks.values()), grey(y > 0)]
    caption = f"From above: new pictures; the ink found by {', '.join(networks)}; the truth."
    run.image("found", large(torch.cat([row.float() for row in rows])), columns=4, caption=caption)
    first = known.x[:1].expand(3, -1, -1, -1), known.y[:1].expand(3, -1, -1)
    bent, labels = deformed(*first, run.generator("shown bends"), std=ARMS["U-Net"].std)
    pictures = torch.cat((known.x[:1], bent)).cpu() + BRIGHTNESS
    masks = torch.cat((grey(known.y[:1] > 0), grey(labels > 0)))
    caption = "An image and its mask, and three that were bent from it."
    run.image("bent", large(torch.cat((pictures.float(), masks))), columns=4, caption=caption)
    disc = (torch.arange(48) - 24).square() + (torch.arange(48)[:, None] - 24).square() < 100
    pair = torch.stack((disc.roll(-11, 1), disc.roll(11, 1)))
    weights = border_weights(pair)
    shown = torch.stack((pair.any(0).float(), (weights - 1) / 10))[:, None]
    run.image("border weights", large(shown), columns=2, caption="Two objects; the weight between them.")
