"""Compares localisation from a single view, all windows of one scale, and all windows of three scales."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from readtrack.plugin import (
    UNTRAINED,
    Arm,
    Bound,
    Break,
    Claim,
    Figure,
    Run,
    Speedup,
    Sweep,
    Trial,
    at_least,
    at_most,
    hookimpl,
)

from .model import FAST, OverFeat, iou_of_pairs
from .task import (
    BRIGHTNESS,
    CLASSES,
    SCALES,
    WINDOW,
    Pictures,
    Views,
    locate,
    pictures,
    readable,
    windows,
)

ONE_SCALE = Break("one scale", "Localisation uses only the best of the three scales.")
MIDDLES = Break(
    "central windows of three scales", "Only the central window of each scale is used.", "near miss"
)
FIVE_VIEWS = Break(
    "five views",
    "The windows are the central window and the four corners of each scale, like AlexNet's test views.",
    "rival",
)
GLANCES = Break(
    "second glance",
    "The five views of one scale find a box, and one more window around this box gives the class and box. "
    "The window is rescaled so that the box has the size of the training objects.",
    "rival",
)

ERROR = "localisation error"

SIZES = Claim(
    name="parameter and view counts",
    sentence="The networks have the numbers of parameters that the paper states, and an image of 281 × 317 "
    "pixels has 54 views.",
    paper=Figure(
        "The fast network has 145 million parameters, and the accurate network has 144 million. At scale 2 "
        "there are 2 × 3 positions for each of 9 offsets",
        where="table 4, figure 8",
        read="table",
    ),
    rule=(
        Bound("whole millions of parameters, fast", "==", 145),
        Bound("whole millions of parameters, accurate", "==", 144),
        Bound("views of an image of 281 × 317", "==", 54),
    ),
    kind="identity",
)

EVERY_WINDOW = Claim(
    name="one pass against separate windows",
    sentence="Applied to a large image, the network gives the same outputs as for each window alone.",
    paper=Figure(
        "The whole network is a sequence of convolutions. The paper gives no number",
        where="section 3.5",
        read="text",
    ),
    rule=(Bound("largest difference from separate windows", "<=", 1e-9),),
    kind="identity",
    deviations="Our network has no padding. The paper's networks pad three or four layers, so for them the "
    "outputs are equal only up to the effect of padding.",
)

SHARED = Claim(
    name="time of one pass against a batch of windows",
    sentence="The network processes all windows of an image faster in one pass over the image than as a "
    "batch of windows.",
    paper=Figure(
        "Neighbouring windows share their computation. The paper gives no number",
        where="section 3.5",
        read="text",
    ),
    rule=(Speedup("every window", over="windows in one batch", threshold=3.0, axes={"side": 48}),),
    control="the same windows, cut out and processed as one batch",
    deviations="The small network is applied to images of 48 × 48 pixels, which have 169 windows of 24 × 24.",
)

STEPS = 250

LOCATES = Claim(
    name="three scales against one scale and one view",
    sentence="After 250 steps, localisation from all windows of three scales makes fewer errors than "
    "localisation from all windows of one scale or from one view.",
    paper=Figure(
        "With 4 scales, the localisation error on ILSVRC 2013 is 29.9 %. Using several scales and views was "
        "critical",
        where="figure 10, section 4.4",
        read="text",
    ),
    rule=(
        at_least(ERROR, "one view", 0.1, minus="three scales", toward=0.02),
        at_least(ERROR, "one scale", 0.03, minus="three scales", toward=0.0),
    ),
    control="the same network on one view, the central window, at its best scale, learning rate and number "
    "of accumulated boxes",
    control_arm="one view",
    control_reaches=(at_most(ERROR, "one view", 0.85),),
    breaks=(ONE_SCALE, MIDDLES, FIVE_VIEWS, GLANCES, UNTRAINED),
    chosen_on=(0, 1),
    after_steps=STEPS,
    deviations="A small network with batch normalisation reads windows of 24 × 24. The pictures have 40 × 40 "
    "pixels and contain a digit of 8 to 30 pixels. Boxes are merged by their overlap. We measure the top-1 "
    "error among five classes. The classifier and the regressor are trained at three scales, on windows that "
    "have an object of 9 to 20 pixels within 4 pixels of the centre. The paper trains on any window that "
    "shows half of the object, but with so few steps our network learnt nothing from such windows. The "
    "classifier is trained for 250 Adam steps and the regressor, which all classes share, for 150. All "
    "methods use the same trained networks. Each method's scale and number of boxes to accumulate (1, 4 or "
    "24) are chosen jointly on validation pictures. On the exploration seeds, the best number for the three "
    "arms was always 1, because the most confident window's box alone gave fewer errors.",
    headline=True,
    history=(
        (
            'Until November 2026 the verdict was "reproduced" (an error lower by 0.25 and 0.08), with the '
            "same bounds on 600 pictures. The rival with five views and the near miss with central windows "
            "are new."
        ),
        (
            "The rival with a second glance is new. On seed 7101 at a learning rate of 0.006, the error was "
            "0.50 with all windows of three scales, 0.60 with one scale, 0.58 with five views of three "
            "scales and 0.46 with these five views and a second glance. Several scales are part of the "
            "paper's idea, so the rival now starts from five views of one scale, which is chosen on "
            "validation pictures like the control's. The bounds are unchanged."
        ),
        (
            'Then the verdict was "not judged", because 2,500 test pictures were too few. There are now '
            "3,500, and the seeds are the same."
        ),
    ),
)

RATES = (0.002, 0.006, 0.018, 0.054)
KEPT = (1, 4, 24)  # boxes of a picture to accumulate, from the most confident windows
BY_SIZE = "localisation error over the object's size"
SIZES_OF = ((8, 12), (12, 16), (16, 21), (21, 27), (27, 40))  # the larger side, in pixels


class Seen(NamedTuple):
    """The number of scales used together and the windows of each scale."""

    scales: int
    views: Views


ARMS = {"three scales": Seen(3, "all"), "one scale": Seen(1, "all"), "one view": Seen(1, "middle")}
BREAKS = {
    ONE_SCALE: Seen(1, "all"),
    MIDDLES: Seen(3, "middle"),
    FIVE_VIEWS: Seen(3, "five"),
    GLANCES: Seen(1, "glances"),
}


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZES):
        count(run)
    if run.wants(EVERY_WINDOW):
        slide(run)
    if run.wants(LOCATES):
        compare(run)


def count(run: Run) -> None:
    run.phase("setup")
    with torch.device("meta"):
        fast = OverFeat(FAST, side=6, hidden=(3072, 4096))
        accurate = OverFeat()
        views = accurate(torch.empty(1, 3, 281, 317)).scores[0, 0].numel()
    sizes = {
        name: sum(w.numel() for part in (network.features, network.classifier) for w in part.parameters())
        for name, network in (("fast", fast), ("accurate", accurate))
    }
    caption = "Parameters of the feature layers and the classifier."
    run.table("networks", ["network", "parameters"], [list(row) for row in sizes.items()], caption=caption)
    values = {f"whole millions of parameters, {name}": size // 10**6 for name, size in sizes.items()}
    run.claim(SIZES, {**values, "views of an image of 281 × 317": views})


@torch.no_grad()
def slide(run: Run) -> None:
    """Compare an untrained network's outputs for an image with its outputs for each window, in float64."""
    torch.manual_seed(run.seed)
    network, side = OverFeat.small(CLASSES).double().eval(), SCALES[1]
    nn.init.normal_(network.regressor[-1].weight)  # the regressor's last layer is initialised to zero
    image = torch.rand(1, 3, side, side, generator=run.generator("image"), dtype=torch.float64)
    dense = network(image)
    alone = network(every_window(image, network.stride))
    differences = [
        (whole.flatten(2)[0].T - own.flatten(1)).abs().max().item()
        for whole, own in zip(dense, alone, strict=True)
    ]
    run.claim(EVERY_WINDOW, {"largest difference from separate windows": max(differences)})


def every_window(image: Float[Tensor, "1 3 height width"], stride: int) -> Float[Tensor, "windows 3 24 24"]:
    """All windows of one image, row by row."""
    cut = image[0].unfold(1, WINDOW, stride).unfold(2, WINDOW, stride)  # (3, rows, columns, 24, 24)
    return cut.permute(1, 2, 0, 3, 4).flatten(0, 1)


class World(NamedTuple):
    train: list[Pictures]  # at each scale
    choose: Pictures
    judge: Pictures


def networks(at: Trial, steps: tuple[int, int]) -> dict[float, OverFeat]:
    """One network per learning rate.

    The classifier is trained first, on windows of all scales. Then the regressor is trained on frozen
    features (section 4.2).
    """
    run, known = at.run, at.world.train
    found = {}
    run.phase("train")
    for rate in RATES:
        at.start()
        network = OverFeat.small(CLASSES).to(run.device, run.dtype)
        draws = at.generator(f"windows, rate {rate:g}")
        parts = {
            "classifier": ([network.features, network.classifier], at.length(steps[0])),
            "regressor": ([network.regressor], at.length(steps[1])),
        }
        for part, (trained, length) in parts.items():
            network.train(part == "classifier")
            optimizer = torch.optim.Adam([w for layers in trained for w in layers.parameters()], lr=rate)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(warmed, length))
            for step in at.steps(length, f"{part} at rate {rate:g}", state=(network, optimizer, schedule)):
                scaled = known[step % len(known)]
                seen = windows(scaled, torch.randint(len(scaled.x), (24,), generator=draws), draws)
                maps = network.features(seen.x.to(run.dtype))
                if part == "classifier":
                    loss = F.cross_entropy(network.classifier(network.offsets(maps))[..., 0, 0], seen.y)
                else:
                    boxes = network.regressor(network.offsets(maps.detach()))[..., 0, 0]
                    loss = (boxes - seen.boxes.to(boxes)).square().sum(1).mean()
                at.descend(
                    loss, optimizer, step=step, metric=at.part(f"loss of the {part}"), arm=f"rate {rate:g}"
                )
                schedule.step()
        found[rate] = network.eval()
    run.phase("evaluate")
    return found


def warmed(steps: int, step: int) -> float:
    """Linear warm-up for ten steps, then linear decay to 0."""
    return min(1, (step + 1) / 10) * (1 - step / steps)


def located(
    network: OverFeat, part: Pictures, scales: Sequence[int], *, views: Views, kept: int
) -> Bool[Tensor, " count"]:
    """Whether each picture's predicted class is right and the predicted box has an IoU of at least 0.5."""
    right = []
    for x, y, boxes in zip(*(field.split(250) for field in part), strict=True):
        found = locate(network, x, scales, views=views, kept=kept)
        right.append((found.labels == y) & (iou_of_pairs(found.boxes, boxes) >= 0.5))
    return torch.cat(right)


class Learnt(NamedTuple):
    network: OverFeat
    views: Views
    scales: tuple[int, ...]  # the best on `choose`
    kept: int


def wrong(learnt: Learnt, part: Pictures) -> Float[Tensor, " count"]:
    """1 for each picture whose object is not located."""
    right = located(learnt.network, part, learnt.scales, views=learnt.views, kept=learnt.kept)
    return 1 - right.float()


def compare(run: Run) -> None:
    drawn = pictures(run, "train", run.pick(smoke=64, quick=1500, full=20_000))
    world = World(
        [readable(drawn, side) for side in SCALES],
        pictures(run, "choose", run.pick(smoke=20, quick=200, full=2000)),
        pictures(run, "judge", run.pick(smoke=20, quick=3500, full=4000)),
    )
    before = partial(networks, steps=run.pick(smoke=(2, 2), quick=(STEPS, 150), full=(4000, 3000)))
    table = run.compare(
        LOCATES,
        arms={name: Arm(seen, before=before) for name, seen in ARMS.items()},
        attempt=attempt,
        read=read_off,
        grid=RATES,
        widen=False,
        score="validation localisation error",
        breaks={one.name: {"three scales": Arm(seen, before=before)} for one, seen in BREAKS.items()},
        world=world,
    )
    run.axes(BY_SIZE, x="the object's larger side, pixels", y="wrong class or box")
    run.headline(BY_SIZE)
    if "three scales" in table.sweeps:
        show(run, table.sweeps["three scales"].chosen, world.judge)


def attempt(at: Trial, seen: Seen, rate: float) -> tuple[float, Learnt]:
    """The network of one learning rate, with the scale and number of boxes that are best on `choose`."""
    sets = [SCALES] if seen.scales > 1 else [(side,) for side in SCALES]
    network = at.before[rate]
    tried = [Learnt(network, seen.views, scales, kept) for scales in sets for kept in KEPT]
    errors = [wrong(one, at.world.choose).mean().item() for one in tried]
    lowest = min(errors)
    return lowest, tried[errors.index(lowest)]


def read_off(at: Trial, found: Sweep[Learnt]) -> dict[str, Tensor]:
    """The localisation error of each picture."""
    judge, learnt = at.world.judge, found.chosen
    mistakes = wrong(learnt, judge)
    size = (judge.boxes[:, 2:] - judge.boxes[:, :2]).amax(1)
    at.metric(ERROR, mistakes.mean().item())
    at.metric("scale", sum(learnt.scales) / len(learnt.scales))
    at.metric("boxes accumulated", learnt.kept)
    for low, high in SIZES_OF:
        here = (size >= low) & (size < high)
        if here.any():
            at.metric(BY_SIZE, mistakes[here].mean().item(), step=(low + high) / 2)
    return {ERROR: mistakes}


def show(run: Run, learnt: Learnt, judge: Pictures) -> None:
    """Draw the most confident windows' boxes in grey, the prediction in yellow, and the true box in white."""
    several, found = (
        locate(learnt.network, judge.x[:9], learnt.scales, views="all", kept=kept)
        for kept in (max(KEPT), learnt.kept)
    )
    tiles = (judge.x[:9] + BRIGHTNESS).cpu().repeat_interleave(4, 2).repeat_interleave(4, 3)
    for tile, candidates, box, truth in zip(
        tiles, several.candidates, found.boxes, judge.boxes, strict=False
    ):
        for one in candidates:
            outline(tile, 4 * one, (0.5, 0.5, 0.5))
        outline(tile, 4 * truth, (1.0, 1.0, 1.0))
        outline(tile, 4 * box, (1.0, 0.9, 0.0))
    names = ", ".join(str(label) for label in found.labels.tolist())
    best = "window" if learnt.kept == 1 else f"{learnt.kept} windows"
    caption = (
        f"Grey: boxes of the {max(KEPT)} most confident windows. Yellow: the prediction from the best "
        f"{best}. White: the object's box. Predicted classes, row by row: {names}."
    )
    run.image("boxes", tiles, columns=3, caption=caption)


def outline(tile: Float[Tensor, "3 side side"], box: Float[Tensor, "4"], colour: tuple[float, ...]) -> None:
    """Draw a box, one pixel wide, clipped to the picture."""
    last = tile.shape[-1] - 1
    x1, y1, x2, y2 = box.round().long().clamp(0, last).tolist()
    paint = torch.tensor(colour)[:, None]
    tile[:, y1, x1 : x2 + 1] = tile[:, y2, x1 : x2 + 1] = paint
    tile[:, y1 : y2 + 1, x1] = tile[:, y1 : y2 + 1, x2] = paint
