"""Detectors trained on iconic pictures and on scenes, each judged on both; or one trained on COCO itself."""

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
from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl
from readtrack.scores import Detected, average_precision, average_recall, detected_boxes
from readtrack.scores.vision import ANY_AREA, LARGE, MEDIUM, SMALL, THRESHOLDS, precision_and_recall

from .dataset import Batch, Coco, read, write
from .drawing import drawn
from .model import Detector, Found, detect, detection_loss

NO_CONTEXT = Break("no context", "What is called scenes shows one large digit in the middle, too.")

GENERALISES = Claim(
    name="context",
    sentence="Scenes are harder than iconic pictures, and a detector that was trained on scenes keeps a "
    "larger share of its precision than one that was trained on iconic pictures.",
    paper=Figure(
        "AP of a detector trained on PASCAL: 29.6 there, 16.9 on COCO, 57 % of it; trained on COCO: 26.8 and "
        "19.1, 71 %.",
        where="table 1, section 7",
        read="table",
    ),
    rule=(
        Bound("share of AP50 kept, trained on scenes - on iconic pictures", ">=", 0.2, direction=0.05),
        Bound("share kept where digits are as large, scenes - iconic", ">=", 0.2, direction=0.05),
        Bound("AP50 lost, trained on scenes", ">=", 0.07, direction=0.02),
    ),
    control="the same detector, trained on as many objects in iconic pictures, at its best of the same rates",
    control_reaches=(
        Bound("AP50 on iconic pictures, trained on them", ">=", 0.6),
        Bound("AP50 on scenes, trained on them", ">=", 0.15),
    ),
    breaks=(NO_CONTEXT,),
    chosen_on=(0,),
    deviations="A small convolutional detector instead of deformable parts. Made pictures of 32 × 32 with "
    "the digits 0 to 4, written to and read from files of COCO's form: iconic ones show one digit of 12 to "
    "18 pixels in the middle, scenes one to three of 7 to 18 anywhere and half of another one. 1,200 objects "
    "of each kind, 200 steps of 12 objects. Where the scenes' digits have 12 to 18 pixels, too, the detector "
    "trained on scenes lost almost nothing on the exploring seed: ours are hard by their small digits.",
)

SIDE = 32


class Kind(NamedTuple):
    """Pictures of a kind: how many objects one has in the mean, and how `readtrack.data.scenes` makes it."""

    objects: int
    made: dict[str, Any]


KINDS = {
    "iconic pictures": Kind(1, {"level": "iconic", "size": SIDE, "digit": (12, 18), "classes": 5}),
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
WIDTHS = (32, 64, 128, 192, 256, 256)  # of the detector of real images
CERTAIN = 0.2  # a score that is worth drawing
RATES = (0.0015, 0.005, 0.015)
OVER_OVERLAP = "average precision over overlap"
AS_LARGE = "scenes, digits as large as in iconic pictures"


@hookimpl
def experiment(run: Run) -> None:
    folder = run.option("coco", "")
    if folder:
        train_on_coco(run, Path(folder))
    if run.wants(GENERALISES):
        with tempfile.TemporaryDirectory() as made:
            compare(run, Path(made))


def train(
    run: Run,
    arm: str,
    network: Detector,
    draw: Callable[[torch.Generator], Batch],
    rate: float,
    steps: int,
    label: str = "",
) -> None:
    """So many steps; the rate rises for ten steps and then falls to 0."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1, (s + 1) / 10) * (1 - s / steps))
    batches = run.generator("batches")
    run.phase("train")
    network.train()
    for step in run.steps(steps, f"{arm}{label}"):
        batch = Batch(*(field.to(run.device) for field in draw(batches)))
        cells = network(batch.images.to(run.dtype))
        loss = detection_loss(cells, batch, network.stride)
        run.descend(loss, optimizer, step=step, metric=f"loss{label}", arm=arm)
        schedule.step()
    run.phase("evaluate")
    network.eval()


def detections(run: Run, network: Detector, coco: Coco, side: int, count: int) -> list[Found]:
    """In each of the first `count` images, in that image's own pixels."""
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
    """As COCO's evaluation takes them: an object's size is its outline's, a crowd counts for nothing."""
    return [
        detected_boxes(*one, objects.boxes, objects.labels, true_areas=objects.areas, crowd=objects.crowd)
        for one, objects in zip(found, coco.objects, strict=False)
    ]


def twelve(images: list[Detected]) -> dict[str, float]:
    """The numbers that COCO's evaluation prints, in its order; NaN where there is no such object."""
    sizes = {"small": SMALL, "medium": MEDIUM, "large": LARGE}
    return {
        "AP": average_precision(images),
        "AP50": average_precision(images, thresholds=(0.5,)),
        "AP75": average_precision(images, thresholds=(0.75,)),
        **{f"AP, {size}": average_precision(images, areas=areas) for size, areas in sizes.items()},
        **{f"AR, {most} an image": average_recall(images, most=most) for most in (1, 10, 100)},
        **{f"AR, {size}": average_recall(images, areas=areas) for size, areas in sizes.items()},
    }


class Learnt(NamedTuple):
    network: Detector
    ap50: dict[str, float]  # of each kind of pictures


def compare(run: Run, folder: Path) -> None:
    """Two by two: what it was trained on, and what it is judged on."""
    run.phase("setup")
    kinds = dict(KINDS)
    if run.without(NO_CONTEXT.name):
        kinds["scenes"] = kinds["iconic pictures"]
    sizes = {
        "train": run.pick(smoke=16, quick=1200, full=20_000),
        "choose": run.pick(smoke=8, quick=200, full=1000),
        "judge": run.pick(smoke=16, quick=500, full=4000),
    }
    sets = {
        (name, part): write(
            scenes.draw(objects // kind.objects, run.seed, part, **kind.made),
            folder,
            f"{part}, {name}",
            kind.made["classes"],
        )
        for name, kind in kinds.items()
        for part, objects in sizes.items()
    }
    known = {name: sets[name, "train"].batch(range(len(sets[name, "train"])), SIDE) for name in kinds}
    arms = run.arms({name: name for name in kinds}, control="iconic pictures")

    def learn(arm: str, rate: float) -> tuple[float, Detector]:
        kind, choose = arms[arm], sets[arms[arm], "choose"]
        torch.manual_seed(run.seed)
        network = Detector(len(choose.names)).to(run.device, run.dtype)
        draw, steps = (
            partial(some, known[kind], 12 // kinds[kind].objects),
            run.pick(smoke=3, quick=200, full=3000),
        )
        train(run, arm, network, draw, rate, steps, f" at rate {rate:g}")
        return ap50(run, network, choose), network

    rates = run.pick(smoke=RATES[1:2], quick=RATES, full=RATES)
    best = {
        arm: run.sweep(arm, rates, partial(learn, arm), score="AP50 on choose", keep="highest")
        for arm in arms
    }
    networks = {arm: found.result for arm, found in best.items()}
    judge = {name: sets[name, "judge"] for name in kinds}
    as_large = {**kinds["scenes"].made, "digit": kinds["iconic pictures"].made["digit"]}
    drawn_as_large = scenes.draw(sizes["judge"] // kinds["scenes"].objects, run.seed, "judge", **as_large)
    also = {AS_LARGE: write(drawn_as_large, folder, AS_LARGE, as_large["classes"])}
    state(run, list(best.values()), tabulate(run, networks, {**judge, **also}))
    show(run, networks, judge)
    run.headline(OVER_OVERLAP)


def some(whole: Batch, count: int, generator: torch.Generator) -> Batch:
    return whole.of(torch.randint(len(whole.images), (count,), generator=generator))


def ap50(run: Run, network: Detector, coco: Coco) -> float:
    found = detections(run, network, coco, SIDE, len(coco))
    return average_precision(judged(coco, found), thresholds=(0.5,))


def tabulate(
    run: Run, networks: Mapping[str, Detector], judge: Mapping[str, Coco]
) -> dict[tuple[str, str], float]:
    """AP50 of each detector on each kind of pictures; a curve of its precision over the overlap asked for."""
    found, rows = {}, []
    for arm, network in networks.items():
        for kind, coco in judge.items():
            images = judged(coco, detections(run, network, coco, SIDE, len(coco)))
            precision, _ = precision_and_recall(images, THRESHOLDS, ANY_AREA, 100)
            if kind in KINDS:
                for overlap, value in zip(THRESHOLDS, precision.nanmean((1, 2)).tolist(), strict=True):
                    run.metric(OVER_OVERLAP, value, step=overlap, arm=f"{arm}, judged on {kind}")
            found[arm, kind] = precision[0].nanmean().item()
            run.metric(f"AP50 on {kind}", found[arm, kind], arm=f"trained on {arm}")
            kept = found[arm, kind] / max(found[arm, "iconic pictures"], 1e-6)
            rows.append([arm, kind, round(found[arm, kind], 3), round(kept, 2)])
    run.table("two by two", ["trained on", "judged on", "AP50", "of that on iconic pictures"], rows)
    run.axes(OVER_OVERLAP, x="overlap that counts as found", y="average precision")
    return found


def state(run: Run, tuned: Sequence[Best[Detector]], found: Mapping[tuple[str, str], float]) -> None:
    kept, as_large = (
        {arm: found[arm, kind] / max(found[arm, "iconic pictures"], 1e-6) for arm in KINDS}
        for kind in ("scenes", AS_LARGE)
    )
    for arm in KINDS:
        run.metric("share of AP50 kept", kept[arm], arm=f"trained on {arm}")
        run.metric("share of AP50 kept, digits as large", as_large[arm], arm=f"trained on {arm}")
    values = {
        "share of AP50 kept, trained on scenes - on iconic pictures": kept["scenes"]
        - kept["iconic pictures"],
        "share kept where digits are as large, scenes - iconic": as_large["scenes"]
        - as_large["iconic pictures"],
        "AP50 lost, trained on scenes": found["scenes", "iconic pictures"] - found["scenes", "scenes"],
        "AP50 on iconic pictures, trained on them": found["iconic pictures", "iconic pictures"],
        "AP50 on scenes, trained on them": found["scenes", "scenes"],
    }
    run.claim(GENERALISES, values, tuned=tuned)


def show(run: Run, networks: Mapping[str, Detector], judge: Mapping[str, Coco]) -> None:
    """Three pictures of each kind: what is there, and what each detector finds."""
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
        "From above: iconic pictures, then scenes: what is there; what detectors trained on "
        f"{' and on '.join(networks)} find with a score of {CERTAIN:g} or more."
    )
    run.image("detections", torch.stack(tiles), columns=3, caption=caption)


def certain(found: Sequence[Found]) -> list[tuple[Tensor, Tensor]]:
    """Boxes and labels of detections that are worth drawing."""
    kept = [one.scores >= CERTAIN for one in found]
    return [(one.boxes[rows], one.labels[rows]) for one, rows in zip(found, kept, strict=True)]


def train_on_coco(run: Run, folder: Path) -> None:
    """A larger detector on a folder that is laid out as COCO's download is; judged by the twelve numbers.

    What it found in the images of the second part is kept as a file of COCO's results.
    """
    run.phase("setup")
    known = read(folder, run.option("train", "train2017"))
    judge = read(folder, run.option("val", "val2017"))
    side, batch = run.pick(smoke=64, quick=128, full=256), run.pick(smoke=2, quick=16, full=32)
    torch.manual_seed(run.seed)
    network = Detector(len(known.names), widths=WIDTHS, halving=3).to(run.device, run.dtype)

    def some_files(generator: torch.Generator) -> Batch:
        return known.batch(torch.randint(len(known), (batch,), generator=generator).tolist(), side)

    train(run, "COCO", network, some_files, 0.002, run.pick(smoke=2, quick=200, full=50_000))
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
    run.image("COCO", torch.stack(tiles), columns=3, caption="Detections in images of COCO.")
