"""What skips from finer layers add to a coarse network's labels."""

from copy import deepcopy
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl
from readtrack.scores import mean_iou

from .model import FCN, SmallFCN, upsample
from .task import BRIGHTNESS, CLASSES, Labelled, coloured, labelled

NO_SKIPS = Break("no skips", "The network with skips has none.")

SIZE = Claim(
    name="size",
    sentence="VGG-16 read as convolutions, with scores for PASCAL's 21 classes, has 134 million parameters.",
    paper=Figure("134 million parameters, FCN-VGG16", where="table 1", read="table"),
    rule=(Bound("parameters of FCN-32s, in millions", "==", 134),),
    kind="identity",
)

SKIPS = Claim(
    name="skips",
    sentence="A coarse network that goes on training with scores from finer layers labels pixels better than "
    "one that goes on as it is.",
    paper=Figure("Mean IU 59.4 with stride 32, 62.4 with 16, 62.7 with 8", where="table 2", read="table"),
    rule=(
        Bound("mean IU, stride 1 - stride 4", ">=", 0.12, direction=0.03),
        Bound("mean IU, stride 2 - stride 4", ">=", 0.06, direction=0.015),
    ),
    control="the coarse network, trained for as many more steps, at its best rate of the same three",
    control_reaches=(Bound("mean IU, stride 4 / fitted", ">=", 0.6),),
    breaks=(NO_SKIPS,),
    chosen_on=(0, 1),
    deviations="Pictures of 16 × 16 with one of five digits; maps of stride 4, 2 and 1 instead of 32, 16 and "
    "8. The coarse network is trained from scratch for 300 steps, not from a classifier, and each arm goes "
    "on for 150. Fitted: scores of stride 4, fitted to the truth itself.",
)

ARMS = {"stride 1": 1, "stride 2": 2, "stride 4": 4}
RATES = (0.009, 0.027, 0.081)
NEAR_EDGES = "mean IU within pixels of an edge"


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZE):
        count(run)
    if run.wants(SKIPS):
        compare(run)
        run.headline(NEAR_EDGES)


def count(run: Run) -> None:
    run.phase("setup")
    with torch.device("meta"):
        sizes = {stride: sum(w.numel() for w in FCN(stride).parameters()) for stride in (32, 16, 8)}
    run.table("sizes", ["network", "parameters"], [[f"FCN-{s}s", size] for s, size in sizes.items()])
    run.claim(SIZE, {"parameters of FCN-32s, in millions": round(sizes[32] / 1e6)})


def train(
    run: Run, arm: str, network: nn.Module, known: Labelled, rate: float, steps: int, label: str = ""
) -> None:
    """So many steps more; the rate rises for ten steps and then falls to 0."""
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1, (s + 1) / 10) * (1 - s / steps))
    batches = run.generator(f"batches{label}")
    run.phase("train")
    network.train()
    for step in run.steps(steps, f"{arm}{label}"):
        rows = torch.randint(len(known.x), (32,), generator=batches)
        loss = F.cross_entropy(network(known.x[rows]), known.y[rows])
        run.descend(loss, optimizer, step=step, metric=f"loss{label}", arm=arm)
        schedule.step()
    run.phase("evaluate")
    network.eval()


@torch.no_grad()
def iu(network: nn.Module, held_out: Labelled) -> float:
    """Mean intersection over union, the background's too."""
    found = torch.cat([network(x).argmax(1) for x in held_out.x.split(250)])
    return mean_iou(found.cpu(), held_out.y.cpu(), CLASSES)


def fitted(y: Int64[Tensor, "count height width"], stride: int = 4, steps: int = 100) -> float:
    """A coarse network's ceiling: mean IU of scores of that stride that were fitted to the truth itself."""
    size = (len(y), CLASSES, *(side // stride for side in y.shape[1:]))
    scores = torch.zeros(size, device=y.device, requires_grad=True)
    optimizer = torch.optim.Adam([scores], lr=1.0)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(upsample(scores, stride), y, reduction="sum").backward()
        optimizer.step()
    return mean_iou(upsample(scores.detach(), stride).argmax(1).cpu(), y.cpu(), CLASSES)


def near_edges(y: Int64[Tensor, "count height width"], pixels: int) -> Bool[Tensor, "count height width"]:
    """Pixels with another class within so many pixels, in both directions."""
    values = y[:, None].float()
    window = 2 * pixels + 1
    highest, lowest = (sign * F.max_pool2d(sign * values, window, 1, pixels) for sign in (1, -1))
    return (highest != lowest)[:, 0]


@torch.no_grad()
def by_distance(run: Run, arm: str, network: nn.Module, held_out: Labelled) -> None:
    """Mean IU of the pixels near edges, where a coarse network errs, and farther and farther away."""
    found = torch.cat([network(x).argmax(1) for x in held_out.x.split(250)])
    for pixels in (1, 2, 3, 5, 8):
        near = near_edges(held_out.y, pixels)
        value = mean_iou(found[near].cpu(), held_out.y[near].cpu(), CLASSES)
        run.metric(NEAR_EDGES, value, step=pixels, arm=arm)


class Learnt(NamedTuple):
    network: nn.Module
    iu: float


def compare(run: Run) -> None:
    known = labelled(run, "train", run.pick(smoke=64, quick=3000, full=20_000))
    choose = labelled(run, "choose", run.pick(smoke=50, quick=500, full=2000))
    judge = labelled(run, "judge", run.pick(smoke=50, quick=1500, full=6000))
    torch.manual_seed(run.seed)
    coarse = SmallFCN(classes=CLASSES).to(run.device, run.dtype)
    train(run, "coarse", coarse, known, 0.009, run.pick(smoke=3, quick=300, full=3000), ", before the skips")
    finest = dict.fromkeys(ARMS, 4) if run.without(NO_SKIPS.name) else ARMS
    arms = run.arms(finest, control="stride 4")

    def go_on(arm: str, rate: float) -> tuple[float, Learnt]:
        network = SmallFCN(classes=CLASSES, finest=arms[arm])
        network = network.to(run.device, run.dtype)
        network.load_state_dict(deepcopy(coarse.state_dict()), strict=False)
        train(run, arm, network, known, rate, run.pick(smoke=2, quick=150, full=1500), f" at rate {rate:g}")
        return iu(network, choose), Learnt(network, iu(network, judge))

    rates = run.pick(smoke=RATES[1:2], quick=RATES, full=RATES)
    best: dict[str, Best[Learnt]] = {}
    for arm in arms:
        best[arm] = run.sweep(arm, rates, partial(go_on, arm), score="mean IU on choose", keep="highest")
        run.metric("mean IU", best[arm].result.iu, arm=arm)
        by_distance(run, arm, best[arm].result.network, judge)
    run.axes(NEAR_EDGES, x="pixels from an edge, at most", y="mean IU")
    run.metric("mean IU", iu(coarse, judge), arm="before")
    ceiling = fitted(judge.y[:500])
    run.metric("mean IU", ceiling, arm="stride 4, fitted to the truth")
    ius = {arm: found.result.iu for arm, found in best.items()}
    values = {
        "mean IU, stride 1 - stride 4": ius["stride 1"] - ius["stride 4"],
        "mean IU, stride 2 - stride 4": ius["stride 2"] - ius["stride 4"],
        "mean IU, stride 4 / fitted": ius["stride 4"] / ceiling,
    }
    run.claim(SKIPS, values, tuned=list(best.values()))
    draw(run, {arm: found.result.network for arm, found in best.items()}, judge)


@torch.no_grad()
def draw(run: Run, networks: dict[str, nn.Module], judge: Labelled) -> None:
    """Four pictures, what each network makes of them, and the truth."""
    x, y = judge.x[:4], judge.y[:4]
    found = [coloured(networks[arm](x).argmax(1)) for arm in reversed(ARMS)]
    rows = torch.cat(((x + BRIGHTNESS).cpu().float(), *found, coloured(y)))
    large = rows.repeat_interleave(4, 2).repeat_interleave(4, 3)
    caption = f"From above: pictures; labels of {', '.join(reversed(ARMS))}; the truth."
    run.image("labels", large, columns=4, caption=caption)
