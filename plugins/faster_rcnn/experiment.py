"""How many objects a few proposals cover, what a detector makes of them, and three detectors in a table."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from readtrack.plugin import Bound, Break, Claim, Figure, Run, hookimpl

from ..fast_rcnn.experiment import IMAGES, Scale, optimizer_of, picked
from ..fast_rcnn.experiment import Learnt as Fast
from ..fast_rcnn.experiment import starting_from as fast_from
from ..fast_rcnn.experiment import train as train_fast
from ..fast_rcnn.model import detection_loss
from ..rcnn.boxes import encode
from ..rcnn.experiment import (
    DEVIATIONS,
    RATES,
    Parts,
    fine_tune,
    pretrained,
    svm_targets,
    with_svms,
)
from ..rcnn.experiment import draw as draw_detections
from ..rcnn.experiment import starting_from as rcnn_from
from ..rcnn.model import RegionNet
from ..rcnn.task import (
    CLASSES,
    REGIONS,
    SIDE,
    Detection,
    Found,
    detection,
    framed,
    grouped,
    mean_ap,
    random_windows,
    recall,
)
from .model import RPN, FasterRCNN, Matched, match, rpn_loss, sample

UNRANKED = Break("unranked", "Of the network's twenty best regions some are taken at random, not the best.")

SIZES = Claim(
    name="sizes",
    sentence="On VGG-16's 512 maps the proposal network has 2.4 million weights.",
    paper=Figure(
        "3 × 3 × 512 × 512 + 512 × 6 × 9 = 2.4 million", where="section 3.1.1, a footnote", read="text"
    ),
    rule=(Bound("weights, millions", "==", 2.4),),
    kind="identity",
    deviations="One score of each of the nine anchors, not two.",
)

RECALLS = Claim(
    name="few proposals",
    sentence="A few regions by the proposal network cover more objects than as many by grouping pixels.",
    paper=Figure(
        "Recall hardly falls from 2,000 to 300 regions, that of selective search more quickly",
        where="figure 4",
        read="text",
    ),
    rule=(Bound("recall with 3 regions, network - grouping", ">=", 0.08, direction=0.02),),
    control="connected regions of one colour or brightness, and pairs of them, the most frequent first",
    control_reaches=(Bound("recall with 3 regions, grouping", ">=", 0.4),),
    breaks=(UNRANKED,),
    chosen_on=(0,),
    deviations=DEVIATIONS,
)

DETECTS = Claim(
    name="detection from few proposals",
    sentence="The same detector finds more with three regions by the network than with three by grouping.",
    paper=Figure(
        "VGG16: mAP 69.9 from 300 regions by the network, 66.9 from 2,000 by selective search",
        where="table 3",
        read="table",
    ),
    rule=(Bound("mAP with 3 regions, network - grouping", ">=", 0.05, direction=0.01),),
    control="the same trained network, given the regions by grouping",
    control_reaches=(Bound("mAP with 3 regions, grouping", ">=", 0.15),),
    breaks=(UNRANKED,),
    chosen_on=(0,),
    deviations=DEVIATIONS + " Both parts learn at once, not in four steps in turn.",
)

FEW = 3
ANCHORS = 64  # of an image that are learnt from; the paper has 256
CODES = Scale(torch.zeros(4), torch.tensor([0.1, 0.1, 0.2, 0.2]))


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZES):
        with torch.device("meta"):
            network = RPN(512, 512, 9)
        weights = sum(layer.weight.numel() for layer in network.children())
        run.claim(SIZES, {"weights, millions": round(weights / 1e6, 1)})
    if run.wants(RECALLS, DETECTS):
        compare(run)
    run.headline("recall over regions")


def starting_from(before: RegionNet, seed: int) -> FasterRCNN:
    """The other task's network with a new proposal network, scores and codes."""
    torch.manual_seed(seed)
    network = FasterRCNN(CLASSES).to(before.head.hidden.weight)
    network.detector = fast_from(before, seed, cells=4)
    return network


def regions_of(known: Detection, boxes: Float[Tensor, "images regions 4"]) -> tuple[Tensor, Tensor]:
    """Labels of regions, the background's for all that overlap no object by half, and their codes."""
    labels, overlap, own = known.named(boxes)
    codes = (encode(own, boxes) - CODES.mean.to(boxes)) / CODES.std.to(boxes)
    return torch.where(overlap >= 0.5, labels, CLASSES), codes


def train(run: Run, network: FasterRCNN, known: Detection, rate: float) -> None:
    """Proposals and detections at once: the sum of both losses, no gradient through the boxes."""
    steps = run.pick(smoke=2, quick=150, full=2000)
    with torch.no_grad():
        anchors = network.anchors(network.detector.backbone(known.x[:1]))
    matched = match(anchors, known.boxes.to(anchors), height=SIDE, width=SIDE)
    optimizer, batches = optimizer_of(network, network.detector.backbone, rate), run.generator("images")
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1, (s + 1) / 10) * (1 - s / steps))
    run.phase("train")
    for step in run.steps(steps, f"Faster R-CNN, rate {rate:g}"):
        rows = torch.randint(len(known.x), (IMAGES,), generator=batches).to(known.x.device)
        part = Detection(*(field[rows] for field in known))
        maps = network.detector.backbone(part.x)
        scores, codes = network.rpn(maps)
        labels = sample(matched.labels[rows], ANCHORS, batches)
        proposing = rpn_loss(scores, codes, anchors, Matched(labels, matched.boxes[rows]))
        with torch.no_grad():
            # Absent objects' boxes would have no area.
            objects = torch.where(part.labels[..., None] >= 0, part.boxes, part.boxes[:, :1])
            boxes = torch.cat((network.proposals(maps, REGIONS), objects), 1)
            boxes = torch.cat((boxes[..., :2], boxes[..., 2:].maximum(boxes[..., :2] + 1)), -1)
        labels, wanted = regions_of(part, boxes)
        each = torch.arange(IMAGES, device=labels.device)[:, None], picked(labels, batches)
        scores, codes = network.detector.regions(maps, boxes[each])
        own, wanted = labels[each].flatten(), wanted[each].flatten(0, 1)
        naming = detection_loss(scores.flatten(0, 1), codes.flatten(0, 1), own, wanted.to(codes))
        run.descend(
            proposing + naming, optimizer, step=step, metric=f"loss at rate {rate:g}", arm="Faster R-CNN"
        )
        schedule.step()
    run.phase("evaluate")


@torch.no_grad()
def proposed(network: FasterRCNN, data: Detection) -> Detection:
    """The same scenes with the network's proposals, best first."""
    boxes = [network.proposals(network.detector.backbone(x), REGIONS) for x in data.x.split(50)]
    return data._replace(proposals=torch.cat(boxes))


def first(data: Detection, count: int) -> Detection:
    return data._replace(proposals=data.proposals[:, :count])


def shuffled(data: Detection, generator: torch.Generator) -> Detection:
    """The same proposals in a random order."""
    order = torch.rand(data.proposals.shape[:2], generator=generator).argsort(1).to(data.proposals.device)
    return data._replace(proposals=data.proposals.gather(1, order[..., None].expand(-1, -1, 4)))


def compare(run: Run) -> None:
    sizes = (("train", 250), ("choose", 100), ("judge", 300))
    parts = Parts(*(detection(run, p, run.pick(smoke=10, quick=n, full=4 * n)) for p, n in sizes))
    before = pretrained(run)

    networks: dict[float, FasterRCNN] = {}

    def at(rate: float) -> tuple[float, FasterRCNN]:
        network = networks[rate] = starting_from(before, run.seed)
        train(run, network, parts.known, rate)
        found = Fast(network.detector, CODES).find(proposed(network, parts.choose))
        return mean_ap(found, parts.choose), network

    rates = run.pick(smoke=RATES[1:2], quick=RATES, full=RATES)
    best = run.sweep("Faster R-CNN", rates, at, score="mAP on choose", keep="highest")
    network, judge = best.result, parts.judge
    detector = Fast(network.detector, CODES)
    by_network = proposed(network, judge)
    if run.without(UNRANKED.name):
        by_network = shuffled(by_network, run.generator("order"))
    arms = run.arms({"network": by_network, "grouping": judge}, control="grouping")
    windows = torch.stack(
        [random_windows(REGIONS, SIDE, run.generator(f"windows {i}")) for i in range(len(judge.x))]
    )
    for arm, data in {**arms, "at random": judge._replace(proposals=windows.to(judge.boxes))}.items():
        for count in (1, 2, 3, 5, 10, 20):
            run.metric(
                "recall over regions", recall(first(data, count).proposals, judge), step=count, arm=arm
            )
    run.axes("recall over regions", x="regions", y="objects covered by half")
    recalls = {arm: recall(first(data, FEW).proposals, judge) for arm, data in arms.items()}
    if run.wants(RECALLS):
        values = {
            "recall with 3 regions, network - grouping": recalls["network"] - recalls["grouping"],
            "recall with 3 regions, grouping": recalls["grouping"],
        }
        run.claim(RECALLS, values, tuned=[best])
    if run.wants(DETECTS):
        aps = {arm: mean_ap(detector.find(first(data, FEW)), judge) for arm, data in arms.items()}
        for arm, value in aps.items():
            run.metric("mAP with 3 regions", value, arm=arm)
        values = {
            "mAP with 3 regions, network - grouping": aps["network"] - aps["grouping"],
            "mAP with 3 regions, grouping": aps["grouping"],
        }
        run.claim(DETECTS, values, tuned=[best])
    if not run.null and not run.broken:
        tabulate(run, parts, before, networks[RATES[1]])


class Row(NamedTuple):
    """One detector: what it finds, given scenes and their proposals; where these come from."""

    find: Callable[[Detection], Found]
    regions: Callable[[Detection], Detection]


def tabulate(run: Run, parts: Parts, before: RegionNet, faster: FasterRCNN) -> None:
    """All three on the same scenes, from the same network, after as many steps at one rate."""
    rate = RATES[1]
    slow = rcnn_from(before, run.seed)
    fine_tune(run, slow, parts.known, rate)
    _, rcnn = with_svms(run, parts, svm_targets(parts.known), slow)
    fast = fast_from(before, run.seed, cells=4)
    scale = train_fast(run, "Fast R-CNN", fast, parts.known, rate)

    def group(data: Detection) -> Detection:
        boxes = [grouped(image.cpu().float() + 0.3, run.generator("again")) for image in data.x]
        return data._replace(proposals=torch.stack(boxes).to(data.boxes))

    def by_network(data: Detection) -> Detection:
        return proposed(faster, data)

    rows = {
        "R-CNN": Row(rcnn.find, group),
        "Fast R-CNN": Row(Fast(fast, scale).find, group),
        "Faster R-CNN": Row(Fast(faster.detector, CODES).find, by_network),
    }
    table, few = [], Detection(*(field[:50] for field in parts.judge))
    for name, row in rows.items():
        start = time.perf_counter()
        ready = row.regions(few)
        middle = time.perf_counter()
        row.find(ready)
        end = time.perf_counter()
        found = row.find(row.regions(parts.judge))
        ap = mean_ap(found, parts.judge)
        run.metric("mAP", ap, arm=name)
        table.append(
            [
                name,
                rate,
                run.pick(smoke=2, quick=150, full=2000),
                round(ap, 3),
                round(50 / (middle - start)),
                round(50 / (end - middle)),
                round(50 / (end - start)),
            ]
        )
        if name == "Faster R-CNN":
            draw_detections(run, row.regions(parts.judge), found, least=0.5)
    speeds = ["proposals, images/s", "the rest, images/s", "images/s"]
    columns = ["detector", "rate", "steps", "mAP at 0.5", *speeds]
    caption = (
        "The same scenes, network, rate and steps for all. Faster R-CNN's maps are computed twice here, for "
        "either part."
    )
    run.table("three detectors", columns, table, caption=caption)
    draw_proposals(run, parts.judge, by_network(parts.judge))


def draw_proposals(run: Run, judge: Detection, ours: Detection) -> None:
    """The three best regions of the network, and below of the grouping."""
    shown = range(min(3, len(judge.x)))
    rows = [
        framed((judge.x[i] + 0.3).cpu().float(), data.proposals[i, :FEW].cpu().float(), (1.0, 1.0, 1.0))
        for data in (ours, judge)
        for i in shown
    ]
    caption = "Three regions by the network; below, three by grouping."
    run.image("three regions", torch.stack(rows), columns=len(shown), caption=caption)
