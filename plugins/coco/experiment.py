"""Trains detectors on iconic images and on scenes, and tests each on both, or trains one on COCO."""

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from readtrack.data import scenes
from readtrack.plugin import (
    UNTRAINED,
    Arm,
    Break,
    Claim,
    Figure,
    Run,
    Sweep,
    Trial,
    at_least,
    hookimpl,
)
from readtrack.scores import Detected, average_precision, average_recall, detected_boxes
from readtrack.scores.vision import ANY_AREA, LARGE, MEDIUM, SMALL, THRESHOLDS, precision_and_recall

from .dataset import Batch, Coco, read, write
from .drawing import drawn
from .model import Detector, Found, detect, detection_loss
from .pasting import pasted

NO_CONTEXT = Break("no context", "The scenes also show only one large digit.")
LARGE_DIGITS = Break(
    "large digits", "Scenes have no small digits: all digits are as large as iconic digits.", "near miss"
)
ONE_DIGIT = Break(
    "one digit of any size",
    "Images show one digit, with the range of sizes in scenes, and no context.",
    "rival",
)
PASTED = Break(
    "scenes pasted from iconic pictures",
    "The 600 scenes for training are made from the control's 1,200 iconic pictures. Each is a picture into "
    "which the shrunken digit of another picture and half of a third digit are pasted. The learning rate is "
    "chosen on iconic pictures.",
    "rival",
)
STEPS = 200

GENERALISES = Claim(
    name="transfer between scenes and iconic pictures",
    sentence="After 200 steps, a detector trained on scenes has a lower AP50 on scenes than on iconic "
    "pictures. The ratio of the two is higher than for a detector trained on iconic pictures.",
    paper=Figure(
        "A detector trained on PASCAL has an AP of 29.6 on PASCAL and 16.9 on COCO (57 % of that). "
        "A detector trained on COCO has 26.8 on PASCAL and 19.1 on COCO (71 %).",
        where="table 1, section 7",
        read="table",
    ),
    rule=(
        at_least("share of AP50 kept", "scenes", 0.1, minus="iconic pictures", toward=0.0),
        at_least("AP50 lost", "scenes", 0.07, toward=0.02),
    ),
    control="the same detector, trained on the same number of objects in iconic pictures, at its best "
    "learning rate from the same grid",
    control_arm="iconic pictures",
    control_reaches=(
        at_least("AP50 on iconic pictures", "iconic pictures", 0.6),
        at_least("AP50 on scenes", "scenes", 0.15),
    ),
    breaks=(NO_CONTEXT, LARGE_DIGITS, ONE_DIGIT, PASTED, UNTRAINED),
    chosen_on=(0,),
    after_steps=STEPS,
    deviations=(
        "The detector is a small convolutional network instead of a deformable parts model. The images are "
        "synthetic, with 32 × 32 pixels and the digits 0 to 4. They are written to and read from files in "
        "COCO's format. Iconic images show one digit of 12 to 18 pixels at a random position. Scenes show "
        "one to three digits of 7 to 18 pixels and half of another digit. There are 1,200 objects of each "
        "kind, and training takes 200 steps of 12 objects. PASCAL is not purely iconic. COCO's scenes are "
        "hard for several reasons. Our scenes are hard only because their objects are small, and their "
        "digits are independent of each other and of the background, so pasting can imitate them."
    ),
    headline=True,
    history=(
        (
            "Until November 2026 iconic digits were exactly in the middle, the first bound was 0.2, and a "
            "third bound of 0.2 compared scenes with digits as large as iconic digits. The verdict was "
            '"reproduced". The detector trained on iconic pictures had seen only centred digits and lost '
            "precision for that reason. Iconic digits are now anywhere in the image, and the bound is near "
            "the paper's 0.14."
        ),
        (
            'Then the verdict was "reproduced" (0.215; 5 of 5 seeds), with the same rule. There was no rival '
            "that pastes scenes from iconic pictures. With this rival in the place of the scenes, the share "
            "kept is higher by 0.190, 0.134, 0.211, 0.129 and 0.169 on seeds 7101 to 7105, and each of them "
            "passes the rule. Without the half digit, the difference was 0.125 in one run (seed 7102)."
        ),
    ),
)

SIDE = 32


class Kind(NamedTuple):
    """A kind of images: the mean number of objects per image, and arguments for `readtrack.data.scenes`."""

    objects: int
    made: dict[str, Any]


KINDS = {
    "iconic pictures": Kind(1, {"level": "photo", "size": SIDE, "digit": (12, 18), "classes": 5}),
    "scenes": Kind(
        2,
        {
            "level": "many",
            "size": SIDE,
            "digit": (7, 18),
            "classes": 5,
            "objects": (1, 3),
            "fragments": (1, 1),
        },
    ),
}
OTHERS = {
    NO_CONTEXT: KINDS["iconic pictures"],
    LARGE_DIGITS: KINDS["scenes"]._replace(made={**KINDS["scenes"].made, "digit": (12, 18)}),
    ONE_DIGIT: Kind(1, {**KINDS["iconic pictures"].made, "digit": (7, 18)}),
    PASTED: Kind(2, KINDS["iconic pictures"].made),
}
WIDTHS = (32, 64, 128, 192, 256, 256)  # of the detector for real images
CERTAIN = 0.2  # lowest score of detections that are drawn
RATES = (0.0015, 0.005, 0.015)
OVER_OVERLAP = "average precision over overlap"


@hookimpl
def experiment(run: Run) -> None:
    folder = run.option("coco", "")
    if folder:
        train_on_coco(run, Path(folder))
    if run.wants(GENERALISES):
        with tempfile.TemporaryDirectory() as made:
            compare(run, Path(made))


def train(
    run: Run | Trial,
    device: torch.device,
    dtype: torch.dtype,
    arm: str,
    network: Detector,
    draw: Callable[[torch.Generator], Batch],
    rate: float,
    steps: int,
    label: str = "",
) -> None:
    """Train for `steps` steps. The learning rate rises for ten steps and then falls linearly to 0."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1, (s + 1) / 10) * (1 - s / steps))
    batches = run.generator("batches")
    network.train()
    for step in run.steps(steps, f"{arm}{label}", state=(network, optimizer, schedule)):
        batch = Batch(*(field.to(device) for field in draw(batches)))
        cells = network(batch.images.to(dtype))
        loss = detection_loss(cells, batch, network.stride)
        run.descend(loss, optimizer, step=step, metric=f"loss{label}", arm=arm)
        schedule.step()
    network.eval()


def detections(run: Run, network: Detector, coco: Coco, side: int, count: int) -> list[Found]:
    """Detections in each of the first `count` images, in the image's own pixels."""
    found: list[Found] = []
    for first in range(0, count, 100):
        run.check_cancelled()
        rows = range(first, min(first + 100, count))
        here = detect(network, coco.batch(rows, side).images.to(run.device, run.dtype))
        found += [
            one._replace(boxes=one.boxes / coco.scale(row, side)) for row, one in zip(rows, here, strict=True)
        ]
    return found


def judged(coco: Coco, found: list[Found]) -> list[Detected]:
    """Input of COCO's evaluation: an object's size is its mask's area, and crowds are ignored."""
    return [
        detected_boxes(*one, objects.boxes, objects.labels, true_areas=objects.areas, crowd=objects.crowd)
        for one, objects in zip(found, coco.objects, strict=False)
    ]


def twelve(images: list[Detected]) -> dict[str, float]:
    """The numbers that COCO's evaluation prints, in its order, with NaN if there is no object of a size."""
    sizes = {"small": SMALL, "medium": MEDIUM, "large": LARGE}
    return {
        "AP": average_precision(images),
        "AP50": average_precision(images, thresholds=(0.5,)),
        "AP75": average_precision(images, thresholds=(0.75,)),
        **{f"AP, {size}": average_precision(images, areas=areas) for size, areas in sizes.items()},
        **{f"AR, {most} an image": average_recall(images, most=most) for most in (1, 10, 100)},
        **{f"AR, {size}": average_recall(images, areas=areas) for size, areas in sizes.items()},
    }


class Sets(NamedTuple):
    train: dict[str, Batch]
    choose: dict[str, Coco]
    judge: dict[str, Coco]


def compare(run: Run, folder: Path) -> None:
    """Train on each kind of images, and test on both."""
    run.phase("setup")
    counts = {
        "train": run.pick(smoke=16, quick=1200, full=20_000),
        "choose": run.pick(smoke=8, quick=200, full=1000),
        "judge": run.pick(smoke=16, quick=500, full=4000),
    }

    def written(name: str, kind: Kind, part: scenes.Part) -> Coco:
        drawn = scenes.draw(counts[part] // kind.objects, run.data_seed(part), part, **kind.made)
        return write(drawn, folder, f"{part}, {name}", kind.made["classes"])

    asked = {one.name: kind for one, kind in OTHERS.items() if one != PASTED and run.without(one.name)}
    kinds = {**KINDS, **asked}
    known = {name: written(name, kind, "train") for name, kind in kinds.items()}
    world = Sets(
        {name: coco.batch(range(len(coco)), SIDE) for name, coco in known.items()},
        {name: written(name, kind, "choose") for name, kind in kinds.items()},
        {name: written(name, kind, "judge") for name, kind in KINDS.items()},
    )
    if run.without(PASTED.name):
        world.train[PASTED.name] = pasted(world.train["iconic pictures"], run.data("pasted scenes", "train"))
        world.choose[PASTED.name] = world.choose["iconic pictures"]
    table = run.compare(
        GENERALISES,
        arms={name: Arm(name) for name in KINDS},
        attempt=partial(learn, steps=run.pick(smoke=3, quick=STEPS, full=3000)),
        read=read_off,
        grid=RATES,
        score="validation AP50",
        keep="highest",
        breaks={one.name: {"scenes": Arm(one.name)} for one in OTHERS},
        world=world,
        unequal={
            "scenes": "how much they draw. This arm draws half as many images with two objects each, which "
            "favours neither"
        },
    )
    rows = [
        [arm, kind, round(float(table[arm, f"AP50 on {kind}"]), 3)] for arm in table.sweeps for kind in KINDS
    ]
    run.table("transfer", ["trained on", "evaluated on", "AP50"], rows)
    run.axes(OVER_OVERLAP, x="overlap threshold", y="average precision")
    show(run, {arm: sweep.chosen for arm, sweep in table.sweeps.items()}, world.judge)
    run.headline(OVER_OVERLAP)


def learn(at: Trial, kind: str, rate: float, *, steps: int) -> tuple[float, Detector]:
    """Train on images of one kind, and return the AP50 on validation images of this kind and the detector."""
    run, choose = at.run, at.world.choose[kind]
    network = Detector(len(choose.names)).to(run.device, run.dtype)
    objects = {**KINDS, **{one.name: other for one, other in OTHERS.items()}}[kind].objects
    draw = partial(some, at.world.train[kind], 12 // objects)
    run.phase("train")
    train(at, run.device, run.dtype, at.name, network, draw, rate, at.length(steps), f" at rate {rate:g}")
    run.phase("evaluate")
    return ap50(run, network, choose), network


def read_off(at: Trial, found: Sweep[Detector]) -> dict[str, float]:
    """AP50 on each kind of images. Also plots average precision against the overlap threshold."""
    values = {}
    for kind, coco in at.world.judge.items():
        images = judged(coco, detections(at.run, found.chosen, coco, SIDE, len(coco)))
        precision, _ = precision_and_recall(images, THRESHOLDS, ANY_AREA, 100)
        for overlap, value in zip(THRESHOLDS, precision.nanmean((1, 2)).tolist(), strict=True):
            at.metric(OVER_OVERLAP, value, step=overlap, arm=f"{at.name}, judged on {kind}")
        values[f"AP50 on {kind}"] = precision[0].nanmean().item()
    iconic, others = values["AP50 on iconic pictures"], values["AP50 on scenes"]
    values |= {"share of AP50 kept": others / max(iconic, 1e-6), "AP50 lost": iconic - others}
    for name, value in values.items():
        at.metric(name, value, arm=f"trained on {at.name}")
    return values


def some(whole: Batch, count: int, generator: torch.Generator) -> Batch:
    return whole.of(torch.randint(len(whole.images), (count,), generator=generator))


def ap50(run: Run, network: Detector, coco: Coco) -> float:
    found = detections(run, network, coco, SIDE, len(coco))
    return average_precision(judged(coco, found), thresholds=(0.5,))


def show(run: Run, networks: Mapping[str, Detector], judge: Mapping[str, Coco]) -> None:
    """Save three images of each kind, with the true objects and each detector's detections."""
    tiles = []
    for coco in judge.values():
        count = min(3, len(coco))
        batch = coco.batch(range(count), SIDE)
        truth = [(boxes[labels >= 0], labels[labels >= 0]) for boxes, labels in zip(*batch[1:], strict=True)]
        found = [certain(detections(run, network, coco, SIDE, count)) for network in networks.values()]
        for row in (truth, *found):
            tiles += [
                drawn(image, *one, coco.names, enlarge=4)
                for image, one in zip(batch.images, row, strict=True)
            ]
    caption = (
        "Three iconic pictures, then three scenes: their objects, and the detections of detectors trained on "
        f"{' and on '.join(networks)} with a score of {CERTAIN:g} or more."
    )
    rows = ["truth", *(f"by {arm}" for arm in networks)] * len(judge)
    run.image("detections", torch.stack(tiles), columns=3, rows=rows, caption=caption)


def certain(found: Sequence[Found]) -> list[tuple[Tensor, Tensor]]:
    """Boxes and labels of detections with a score of `CERTAIN` or more."""
    kept = [one.scores >= CERTAIN for one in found]
    return [(one.boxes[rows], one.labels[rows]) for one, rows in zip(found, kept, strict=True)]


def train_on_coco(run: Run, folder: Path) -> None:
    """Train a larger detector on a folder with the layout of COCO's download, and report the twelve numbers.

    Detections in the validation images are saved as a COCO result file.
    """
    run.phase("setup")
    known = read(folder, run.option("train", "train2017"))
    judge = read(folder, run.option("val", "val2017"))
    side, batch = run.pick(smoke=64, quick=128, full=256), run.pick(smoke=2, quick=16, full=32)
    torch.manual_seed(run.seed)
    network = Detector(len(known.names), widths=WIDTHS, halving=3).to(run.device, run.dtype)

    def some_files(generator: torch.Generator) -> Batch:
        return known.batch(torch.randint(len(known), (batch,), generator=generator).tolist(), side)

    run.phase("train")
    steps = run.pick(smoke=2, quick=200, full=50_000)
    train(run, run.device, run.dtype, "COCO", network, some_files, 0.002, steps)
    run.phase("evaluate")
    count = min(len(judge), run.pick(smoke=8, quick=200, full=len(judge)))
    found = detections(run, network, judge, side, count)
    numbers = twelve(judged(judge, found))
    for name, value in numbers.items():
        if not math.isnan(value):
            run.metric(name, value, arm="COCO")
    run.table("COCO's numbers", ["number", "ours"], [list(row) for row in numbers.items()])
    lines = [line for row, one in enumerate(found) for line in judge.results(row, *one)]
    run.text("results", json.dumps(lines), caption="The detections, as COCO's evaluation reads them.")
    pictures = judge.batch(range(min(count, 12)), side).images
    shown = [(boxes * judge.scale(i, side), labels) for i, (boxes, labels) in enumerate(certain(found[:12]))]
    tiles = [drawn(image, *one, judge.names) for image, one in zip(pictures, shown, strict=True)]
    run.image("COCO", torch.stack(tiles), columns=3, caption="Detections in COCO's validation images.")
