"""What a convolutional network's features and their fine-tuning are worth to a detector."""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from readtrack.data import scenes
from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl
from readtrack.scores.vision import ANY_AREA, precision_and_recall

from ..alexnet import AlexNet
from ..alexnet.task import Pictures, train
from .boxes import encode, overlaps
from .model import Linear, RegionNet, hog, linear_svms, ridge, warp
from .task import (
    BRIGHTNESS,
    CLASSES,
    REGIONS,
    Detection,
    Found,
    detected,
    detection,
    framed,
    mean_ap,
    moved,
    recall,
)

UNTRAINED = Break("untrained", "R-CNN's network has the weights that it began with.")
NO_FINE_TUNING = Break("no fine-tuning", "The network that is called fine-tuned knows single pictures alone.")

SIZES = Claim(
    name="sizes",
    sentence="Features are 4,096 numbers from AlexNet's last hidden layer, which has 29 % of the parameters.",
    paper=Figure("4096 features; fc7 has 29 %, 16.8 million", where="sections 2.1 and 3.2", read="text"),
    rule=(Bound("features", "==", 4096), Bound("parameters of fc7, percent", "==", 29)),
    kind="identity",
)

DEVIATIONS = (
    "Scenes of 48 × 48 with one to three of five digits in two colours and two halves of others; twenty "
    "regions of one colour or pairs of them instead of 2,000 by selective search. A small network, trained "
    "on pictures of the other five digits; Adam. A region is warped with 1 pixel of context of 16, and "
    "beyond "
    "the border the edge is repeated, not the mean. Mean average precision is COCO's at an overlap of 0.5."
)

FEATURES = Claim(
    name="network features against HOG",
    sentence="A network's features of proposed regions detect better than histograms of oriented gradients "
    "(HOG) of the same pixels.",
    paper=Figure("mAP 54.2 against 33.7 of DPM on HOG, VOC 2007", where="table 2", read="table"),
    rule=(Bound("mAP, R-CNN - HOG", ">=", 0.05, direction=0.0),),
    control="linear SVMs on HOG of the same warped regions of 16 × 16, the best C of the same four",
    control_reaches=(Bound("mAP, HOG", ">=", 0.2),),
    breaks=(UNTRAINED,),
    chosen_on=(0, 1),
    deviations=DEVIATIONS + " The rival in the paper is a deformable parts model on HOG, ours an SVM on HOG.",
    history=(
        (
            "Until November 2026 HOG had regions of 24 × 24 pixels, the network of 16 × 16, and the bound "
            "was "
            "a ratio of 1.15, which a HOG of 0.9 leaves no room for. The verdict was "
            '"not reproduced" (0.85). Both '
            "have the same pixels now, and the bound is a difference."
        ),
    ),
)

FINE_TUNED = Claim(
    name="fine-tuning",
    sentence="Training the network on warped regions after another task makes its features detect better.",
    paper=Figure("mAP 44.7 without, 54.2 with fine-tuning (fc7)", where="table 2", read="table"),
    rule=(Bound("mAP, R-CNN - pretrained", ">=", 0.06, direction=0.015),),
    control="the network as the other task left it, with SVMs of the best C of the same four",
    control_reaches=(Bound("mAP, pretrained", ">=", 0.1),),
    breaks=(NO_FINE_TUNING,),
    chosen_on=(0, 1),
    deviations=DEVIATIONS,
)

RATES = (0.004, 0.016, 0.064)
CS = (0.1, 1.0, 10.0, 100.0)
PENALTY = 30.0
PRECISION = "precision over recall"
BATCH, FOREGROUND = 64, 16
Features = Float[Tensor, "rows features"]


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZES):
        count(run)
    if run.wants(FEATURES, FINE_TUNED):
        compare(run)
        run.headline(PRECISION)


def count(run: Run) -> None:
    run.phase("setup")
    with torch.device("meta"):
        network = AlexNet(classes=21)
    total = sum(w.numel() for w in network.parameters())
    fc7 = sum(w.numel() for w in network.hidden2.parameters())
    values = {
        "features": network.hidden2.out_features,
        "parameters of fc7, percent": round(100 * fc7 / total),
    }
    run.claim(SIZES, values)


def pretrained(run: Run) -> RegionNet:
    """A network that names single pictures of the digits that are not to be detected."""

    def make() -> nn.Module:
        return RegionNet(10 - CLASSES)

    def teach(network: nn.Module) -> None:
        count = run.pick(smoke=64, quick=4000, full=20_000)
        drawn = scenes.draw(
            count, run.seed, "train", "photo", size=16, digit=(10, 14), two_coloured=True, dim=0.6
        )
        others = drawn.labels[:, 0] >= CLASSES
        x = (drawn.images[others] - BRIGHTNESS).to(run.device, run.dtype)
        known = Pictures(x, drawn.labels[others, 0].to(run.device) - CLASSES)
        steps = run.pick(smoke=2, quick=400, full=4000)
        train(run, "other digits", lambda: network, known, partial(adam, 0.003), steps=steps, label=" before")

    return run.trained("rcnn.pretrained", make, teach).network


def adam(rate: float, network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam([w for w in network.parameters() if w.requires_grad], lr=rate)


def starting_from(before: RegionNet, seed: int) -> RegionNet:
    """The same network with new scores: of the digits that are to be found, and of the background."""
    torch.manual_seed(seed)
    network = RegionNet(CLASSES + 1).to(before.head.hidden.weight)
    old = {name: weight for name, weight in before.state_dict().items() if "scores" not in name}
    network.load_state_dict(old, strict=False)
    return network


def crops(data: Detection, side: int = 16) -> Float[Tensor, "rows 3 side side"]:
    """All regions, warped."""
    image = torch.arange(len(data.x), device=data.x.device).repeat_interleave(data.proposals.shape[1])
    return warp(data.x, data.proposals.flatten(0, 1).to(data.x), image, side=side)


def fine_tune(run: Run, network: RegionNet, known: Detection, rate: float) -> None:
    """Section 2.3: a quarter of each batch are regions that overlap an object by half or more."""
    x = crops(known)
    labels, overlap, _ = known.named(known.proposals)
    y = torch.where(overlap >= 0.5, labels, CLASSES).flatten()
    pools = ((y < CLASSES).nonzero().flatten(), (y == CLASSES).nonzero().flatten())
    steps = run.pick(smoke=2, quick=150, full=2000)
    optimizer, batches = adam(rate, network), run.generator("regions")
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1, (s + 1) / 10) * (1 - s / steps))
    run.phase("train")
    for step in run.steps(steps, f"R-CNN, rate {rate:g}"):
        sizes = (FOREGROUND, BATCH - FOREGROUND)
        picks = [p[torch.randint(len(p), (n,), generator=batches)] for p, n in zip(pools, sizes, strict=True)]
        rows = torch.cat(picks)
        loss = F.cross_entropy(network(x[rows]), y[rows])
        run.descend(loss, optimizer, step=step, metric=f"loss at rate {rate:g}", arm="R-CNN")
        schedule.step()
    run.phase("evaluate")


def svm_targets(data: Detection) -> Int64[Tensor, "rows classes"]:
    """Section 2.3: objects themselves are examples, regions that overlap none of a class by 0.3 the opposite.

    Of the proposals those that fit an object by 0.8 stand for it.
    """
    classes = torch.arange(CLASSES, device=data.labels.device)
    overlap = overlaps(data.proposals, data.boxes)[..., None]
    of_class = (overlap * (data.labels[:, None, :, None] == classes)).amax(2)
    return (1 * (of_class >= 0.8) - 1 * (of_class < 0.3)).flatten(0, 1)


class Parts(NamedTuple):
    known: Detection
    choose: Detection
    judge: Detection


def hidden(network: RegionNet, data: Detection) -> Features:
    """The hidden layer, which is what the SVMs are given."""
    return torch.cat([network.head(network.pooled(x))[0] for x in crops(data).split(500)])


def last_maps(network: RegionNet, data: Detection) -> Features:
    return torch.cat([network.pooled(x).flatten(1) for x in crops(data).split(500)])


def gradients(data: Detection) -> Features:
    return torch.cat([hog(x) for x in crops(data).split(500)])


class Learnt(NamedTuple):
    """Features, what they are divided by, the SVMs on them, their C; the network they came from, if any."""

    features: Callable[[Detection], Features]
    scale: Tensor
    svms: Linear
    c: float
    network: RegionNet | None

    def find(self, data: Detection) -> Found:
        with torch.no_grad():
            scores = self.svms(self.features(data) / self.scale)
        scores = scores.unflatten(0, (len(data.x), -1)).transpose(1, 2)
        return Found(data.proposals[:, None].to(scores).expand(-1, CLASSES, -1, -1), scores)


def classify(
    parts: Parts,
    targets: Int64[Tensor, "rows classes"],
    make: Callable[[Detection], Features],
    c: float,
    network: RegionNet | None = None,
) -> tuple[float, Learnt]:
    """SVMs on features of the known scenes; their precision on `choose`."""
    with torch.no_grad():
        x = make(parts.known)
    scale = x.norm(dim=1).mean()
    learnt = Learnt(make, scale, linear_svms(x / scale, targets, C=c), c, network)
    return mean_ap(learnt.find(parts.choose), parts.choose), learnt


def compare(run: Run) -> None:
    sizes = (("train", 250), ("choose", 100), ("judge", 300))
    parts = Parts(*(detection(run, p, run.pick(smoke=10, quick=n, full=4 * n)) for p, n in sizes))
    run.metric(f"recall of {REGIONS} regions", recall(parts.judge.proposals, parts.judge))
    targets, before = svm_targets(parts.known), pretrained(run)
    make = {
        "R-CNN": partial(tuned, run, parts, targets, before),
        "pretrained": partial(swept, run, parts, targets, "pretrained", partial(hidden, before)),
        "HOG": partial(swept, run, parts, targets, "HOG", gradients),
    }
    made: dict[object, tuple[Best[Learnt], Found, float]] = {}

    def best(name: str, arms: dict[str, partial[Best[Learnt]]]) -> tuple[Best[Learnt], Found, float]:
        builder = arms[name]
        if builder not in made:
            learnt = builder()
            found = learnt.result.find(parts.judge)
            made[builder] = learnt, found, mean_ap(found, parts.judge)
            run.metric("mAP", made[builder][2], arm=name)
            trace(run, name, found, parts.judge)
        return made[builder]

    for claim, control in ((FEATURES, "HOG"), (FINE_TUNED, "pretrained")):
        if not run.wants(claim):
            continue
        arms = run.arms(make, control=control)
        (ours, _, ap), (theirs, _, their_ap) = best("R-CNN", arms), best(control, arms)
        values = {
            f"mAP, {control}": their_ap,
            f"mAP, R-CNN - {control}": ap - their_ap,
            f"mAP, R-CNN / {control}": ap / max(their_ap, 1e-6),
        }
        run.claim(claim, {name: values[name] for name in claim.metrics}, tuned=[ours, theirs])
    run.axes(PRECISION, x="recall", y="precision, mean of the classes")
    if not run.null and not run.broken:
        regress(run, parts, *best("R-CNN", make)[:2])


def trace(run: Run, arm: str, found: Found, truth: Detection) -> None:
    """Precision at each recall, for an overlap of 0.5: the mean of these is the mean average precision."""
    precision, _ = precision_and_recall(detected(found, truth), (0.5,), ANY_AREA, 100)
    for place in range(0, 101, 5):
        run.metric(PRECISION, precision[0, place].nanmean().item(), step=place / 100, arm=arm)


def swept(
    run: Run, parts: Parts, targets: Tensor, name: str, make: Callable[[Detection], Features]
) -> Best[Learnt]:
    """SVMs on features that are there, for the best C."""
    cs = run.pick(smoke=CS[1:2], quick=CS, full=CS)
    call = partial(classify, parts, targets, cache(make))
    return run.sweep(name, cs, call, what="C", score="mAP on choose", keep="highest")


def tuned(run: Run, parts: Parts, targets: Tensor, before: RegionNet) -> Best[Learnt]:
    """R-CNN: fine-tuned at the best rate, and SVMs of the best C on its features."""

    def at(rate: float) -> tuple[float, Learnt]:
        network = starting_from(before, run.seed)
        if run.without(UNTRAINED.name):
            torch.manual_seed(run.seed)
            network = RegionNet(CLASSES + 1).to(run.device, run.dtype)
        elif not run.without(NO_FINE_TUNING.name):
            fine_tune(run, network, parts.known, rate)
        return with_svms(run, parts, targets, network)

    rates = run.pick(smoke=RATES[1:2], quick=RATES, full=RATES)
    best = run.sweep("R-CNN", rates, at, score="mAP on choose", keep="highest")
    run.metric("best C", best.result.c, arm="R-CNN")
    return best


def with_svms(run: Run, parts: Parts, targets: Tensor, network: RegionNet) -> tuple[float, Learnt]:
    """SVMs on the network's hidden layer, of the same C's as the other arms' and the best of them."""
    make = cache(partial(hidden, network))
    cs = run.pick(smoke=CS[1:2], quick=CS, full=CS)
    return max((classify(parts, targets, make, c, network) for c in cs), key=lambda tried: tried[0])


def regress(run: Run, parts: Parts, best: Best[Learnt], as_proposed: Found) -> None:
    """Appendix C: for each class, from the last maps of regions that overlap an object by more than 0.6.

    It is shown and no claim: these proposals are as tight as the objects' boxes, so there is little to gain.
    """
    network = best.result.network
    assert network is not None, "R-CNN has a network"
    labels, overlap, boxes = parts.known.named(parts.known.proposals)
    targets = encode(boxes, parts.known.proposals).flatten(0, 1)
    with torch.no_grad():
        x, judge = (last_maps(network, part) for part in (parts.known, parts.judge))
    codes = []
    for label in range(CLASSES):
        rows = ((labels == label) & (overlap > 0.6)).flatten().nonzero().flatten()
        fit = ridge(x[rows], targets[rows].to(x), penalty=PENALTY)
        codes.append(fit(judge).unflatten(0, (len(parts.judge.x), -1)))
    found = Found(moved(parts.judge.proposals, torch.stack(codes, 2)), as_proposed.scores)
    for arm, boxes in (("R-CNN", as_proposed), ("R-CNN, boxes regressed", found)):
        run.metric("mAP at 0.75", mean_ap(boxes, parts.judge, 0.75), arm=arm)
    draw(run, parts.judge, found)


GREY, GREEN = (0.6, 0.6, 0.6), (0.2, 1.0, 0.3)


def draw(run: Run, judge: Detection, found: Found, *, least: float = 0.0) -> None:
    """Scenes with their proposals, and below with the boxes that are kept and whose score is above `least`:
    0 of a support vector machine's, a half of probabilities."""
    kept = found.kept() & (found.scores > least)
    above, below, lines = [], [], []
    for i in range(min(3, len(judge.x))):
        image = (judge.x[i] + BRIGHTNESS).cpu().float()
        classes, place = kept[i].nonzero(as_tuple=True)
        above.append(framed(image, judge.proposals[i].cpu(), GREY))
        below.append(framed(image, found.boxes[i, classes, place].cpu().float(), GREEN))
        names = ", ".join(map(str, classes.tolist())) or "nothing"
        there = ", ".join(str(label) for label in judge.labels[i].tolist() if label >= 0)
        lines.append(f"scene {i + 1}: found {names}; there are {there}")
    caption = f"The regions of each scene; below, the boxes that are kept with a score above {least:g}."
    run.image("detections", torch.stack(above + below), columns=len(above), caption=caption)
    run.text("names", "\n".join(lines), caption="The digits that are found, and those that are there.")
