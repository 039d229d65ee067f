"""R-CNN and Fast R-CNN on the same regions; convolutions that learn and that do not."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl

from ..rcnn.boxes import encode
from ..rcnn.experiment import (
    DEVIATIONS,
    RATES,
    Parts,
    crops,
    pretrained,
    svm_targets,
    tuned,
)
from ..rcnn.experiment import draw as draw_detections
from ..rcnn.model import RegionNet
from ..rcnn.task import CLASSES, REGIONS, Detection, Found, detection, mean_ap, moved
from .model import FastRCNN, detection_loss, truncated

ONE_CELL = Break("one cell", "All of a region is pooled into one cell.")
FROZEN = Break("frozen", "The convolutions of the network that is said to learn stay as they were.")

SVD = Claim(
    name="SVD",
    sentence="A dense layer by its 1,024 largest singular values has 29 % of VGG-16's weights in fc6; by all "
    "of them it is the same layer.",
    paper=Figure(
        "1024 singular values of 25088 × 4096; t (u + v) instead of u v", where="3.1, 4.4", read="text"
    ),
    rule=(
        Bound("weights of fc6, percent", "==", 29),
        Bound("error with all singular values, relative", "<=", 1e-3),
    ),
    kind="identity",
)

SHARED = Claim(
    name="shared convolutions",
    sentence="Pooling regions from the maps of the whole image detects as well as R-CNN, for half the work.",
    paper=Figure(
        "VGG16: mAP 66.0 by R-CNN, 66.9 by Fast R-CNN, 146 times as fast", where="table 4", read="secondary"
    ),
    rule=(
        Bound("mAP, Fast R-CNN - R-CNN", ">=", -0.03, direction=-0.06),
        Bound("multiply-adds, R-CNN / Fast R-CNN", ">=", 2.0, direction=1.1, ratio=True),
    ),
    control="R-CNN on the same scenes, regions, network and steps, the best rate of the same three",
    control_reaches=(Bound("mAP, R-CNN", ">=", 0.4),),
    breaks=(ONE_CELL,),
    chosen_on=(0,),
    deviations=DEVIATIONS
    + " With twenty regions R-CNN's work is twice as much, not hundreds of times. R-CNN "
    "learns from 64 regions a step, Fast R-CNN from 128 of eight images, its convolutions at a tenth of the "
    "rate.",
)

THROUGH = Claim(
    name="training through the pooling",
    sentence="A detector whose convolutions learn through RoI pooling is better than one whose do not.",
    paper=Figure("VGG16: mAP 66.9, with frozen convolutions 61.4", where="table 5", read="text"),
    rule=(Bound("mAP, all learns - frozen", ">=", 0.02, direction=0.005),),
    control="the same detector with the convolutions of the other task, the best rate of the same three",
    control_reaches=(Bound("mAP, frozen", ">=", 0.2),),
    breaks=(FROZEN,),
    chosen_on=(0,),
    deviations=DEVIATIONS,
)

IMAGES, BATCH, FOREGROUND = 8, 128, 32  # of a step: images, their regions, and of these objects
BY_WORK = "mAP over multiply-adds"
COUNTS = (3, 6, 12, REGIONS)  # regions of an image, the first of those that are proposed
SLOWER = 0.1  # the convolutions' rate, of that of the layers behind them


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SVD):
        compress(run)
    if run.wants(SHARED, THROUGH):
        compare(run)
        run.headline(BY_WORK)


def compress(run: Run) -> None:
    run.phase("setup")
    torch.manual_seed(run.seed)
    layer = nn.Linear(60, 40).to(run.device, run.dtype)
    x = torch.randn(16, 60, generator=run.generator("dense")).to(run.device, run.dtype)
    with torch.no_grad():
        exact = layer.double()(x.double())
        error = (truncated(layer, 40)(x.double()) - exact).abs().max() / exact.abs().max()
    with torch.device("meta"):
        weights = sum(nn.Linear(*shape).weight.numel() for shape in ((25_088, 1024), (1024, 4096)))
    percent = round(100 * weights / (25_088 * 4096))
    values = {"weights of fc6, percent": percent, "error with all singular values, relative": error.item()}
    run.claim(SVD, values)


class Scale(NamedTuple):
    """Codes of the training set's objects: they are learnt with a mean of 0 and a deviation of 1."""

    mean: Float[Tensor, "4"]
    std: Float[Tensor, "4"]


def targets_of(data: Detection) -> tuple[Tensor, Tensor, Scale]:
    """Of each region its label (the background's is the last), its codes, and what these are scaled by."""
    labels, overlap, boxes = data.named(data.proposals)
    labels = torch.where(overlap >= 0.5, labels, CLASSES)
    codes = encode(boxes, data.proposals)
    objects = codes[labels < CLASSES]
    return labels, codes, Scale(objects.mean(0), objects.std(0) + 1e-3)


def picked(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Sixteen regions of each image, a quarter of them objects where there are any."""
    foreground = (labels < CLASSES).float().cpu()
    each, objects = BATCH // IMAGES, FOREGROUND // IMAGES
    some = torch.multinomial(foreground + 1e-6, objects, replacement=True, generator=generator)
    rest = torch.multinomial(1 - foreground + 1e-6, each - objects, replacement=True, generator=generator)
    return torch.cat((some, rest), 1).to(labels.device)


def starting_from(before: RegionNet, seed: int, *, cells: int) -> FastRCNN:
    """The other task's network, with new scores and codes."""
    torch.manual_seed(seed)
    network = FastRCNN(CLASSES, cells=cells).to(before.head.hidden.weight)
    old = {name: weight for name, weight in before.state_dict().items() if "scores" not in name}
    network.load_state_dict(old, strict=False)
    return network


class Learnt(NamedTuple):
    network: FastRCNN
    scale: Scale

    @torch.no_grad()
    def find(self, data: Detection) -> Found:
        parts = [self.network(*part) for part in zip(data.x.split(50), data.proposals.split(50), strict=True)]
        scores, codes = (torch.cat(field) for field in zip(*parts, strict=True))
        scale = Scale(*(field.to(codes) for field in self.scale))
        boxes = moved(data.proposals, codes * scale.std + scale.mean)
        return Found(boxes, scores.softmax(-1)[..., :CLASSES].transpose(1, 2))


def optimizer_of(network: nn.Module, backbone: nn.Module, rate: float) -> torch.optim.Optimizer:
    """Adam; the convolutions learn more slowly, so that they keep what the other task taught them."""
    old = [weight for weight in backbone.parameters() if weight.requires_grad]
    kept = {id(weight) for weight in backbone.parameters()}
    rest = [weight for weight in network.parameters() if id(weight) not in kept]
    groups = [{"params": rest, "lr": rate}, {"params": old, "lr": SLOWER * rate}]
    return torch.optim.Adam(groups if old else groups[:1])


def train(run: Run, arm: str, network: FastRCNN, known: Detection, rate: float) -> Scale:
    """All at once: names and boxes, and, where they may learn, the convolutions."""
    labels, codes, scale = targets_of(known)
    targets = (codes - scale.mean) / scale.std
    steps = run.pick(smoke=2, quick=150, full=2000)
    optimizer, batches = optimizer_of(network, network.backbone, rate), run.generator("images")
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1, (s + 1) / 10) * (1 - s / steps))
    run.phase("train")
    for step in run.steps(steps, f"{arm}, rate {rate:g}"):
        rows = torch.randint(len(known.x), (IMAGES,), generator=batches).to(known.x.device)
        regions = picked(labels[rows], batches)
        boxes, wanted = (field[rows[:, None], regions] for field in (known.proposals, targets))
        scores, found = network(known.x[rows], boxes)
        own = labels[rows[:, None], regions].flatten()
        loss = detection_loss(scores.flatten(0, 1), found.flatten(0, 1), own, wanted.flatten(0, 1).to(found))
        run.descend(loss, optimizer, step=step, metric=f"loss at rate {rate:g}", arm=arm)
        schedule.step()
    run.phase("evaluate")
    return scale


def swept(run: Run, arm: str, parts: Parts, before: RegionNet, *, learns: bool) -> Best[Learnt]:
    """Fast R-CNN at the best rate; without `learns` its convolutions stay the other task's."""

    def at(rate: float) -> tuple[float, Learnt]:
        network = starting_from(before, run.seed, cells=1 if run.without(ONE_CELL.name) else 4)
        network.backbone.requires_grad_(learns)
        learnt = Learnt(network, train(run, arm, network, parts.known, rate))
        return mean_ap(learnt.find(parts.choose), parts.choose), learnt

    rates = run.pick(smoke=RATES[1:2], quick=RATES, full=RATES)
    return run.sweep(arm, rates, at, score="mAP on choose", keep="highest")


def multiply_adds(network: nn.Module, *given: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*given)
    return counter.get_total_flops() // 2


class Judged(NamedTuple):
    best: Best
    found: Found
    ap: float
    work: Callable[[int], int]  # multiply-adds for one image with so many regions


def trace(run: Run, arm: str, judged: Judged, truth: Detection) -> None:
    """What is found, and for how much work, with a few regions and with more."""
    for count in COUNTS:
        found = Found(judged.found.boxes[:, :, :count], judged.found.scores[:, :, :count])
        ap = judged.ap if count == REGIONS else mean_ap(found, truth)
        run.metric(BY_WORK, ap, step=judged.work(count) / 1e6, arm=arm)
    run.metric("multiply-adds for one image, millions", judged.work(REGIONS) / 1e6, arm=arm)


def compare(run: Run) -> None:
    sizes = (("train", 250), ("choose", 100), ("judge", 300))
    parts = Parts(*(detection(run, p, run.pick(smoke=10, quick=n, full=4 * n)) for p, n in sizes))
    before = pretrained(run)
    one = Detection(*(field[:1] for field in parts.judge))

    def of_rcnn() -> Judged:
        best = tuned(run, parts, svm_targets(parts.known), before)
        found = best.result.find(parts.judge)
        network = best.result.network
        assert network is not None, "R-CNN has a network"
        return Judged(
            best,
            found,
            mean_ap(found, parts.judge),
            lambda regions: multiply_adds(network, crops(one)[:regions]),
        )

    def of_fast(arm: str, learns: bool) -> Judged:
        best = swept(run, arm, parts, before, learns=learns)
        found = best.result.find(parts.judge)
        network = best.result.network
        return Judged(
            best,
            found,
            mean_ap(found, parts.judge),
            lambda regions: multiply_adds(network, one.x, one.proposals[:, :regions]),
        )

    frozen = partial(of_fast, "frozen", False)
    ours = frozen if run.without(FROZEN.name) else partial(of_fast, "Fast R-CNN", True)
    builders = {"Fast R-CNN": ours, "R-CNN": of_rcnn, "frozen": frozen}
    made: dict[object, Judged] = {}

    def judged(name: str, control: str) -> Judged:
        builder = run.arms(builders, control=control)[name]
        if builder not in made:
            made[builder] = builder()
            run.metric("mAP", made[builder].ap, arm=name)
            trace(run, name, made[builder], parts.judge)
        return made[builder]

    if run.wants(SHARED):
        fast, slow = judged("Fast R-CNN", "R-CNN"), judged("R-CNN", "R-CNN")
        values = {
            "mAP, R-CNN": slow.ap,
            "mAP, Fast R-CNN - R-CNN": fast.ap - slow.ap,
            "multiply-adds, R-CNN / Fast R-CNN": slow.work(REGIONS) / fast.work(REGIONS),
        }
        run.claim(SHARED, values, tuned=[fast.best, slow.best])
    if run.wants(THROUGH):
        fast, still = judged("Fast R-CNN", "frozen"), judged("frozen", "frozen")
        values = {"mAP, frozen": still.ap, "mAP, all learns - frozen": fast.ap - still.ap}
        run.claim(THROUGH, values, tuned=[fast.best, still.best])
        draw_detections(run, parts.judge, fast.found, least=0.5)
    run.axes(BY_WORK, x="millions of multiply-adds for an image of 3 to 20 regions", y="mAP")
